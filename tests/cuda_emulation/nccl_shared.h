#pragma once

#include <atomic>
#include <cstddef>
#include <stdexcept>
#include <string>

#include "nccl.h"

namespace nccl_emulation {

constexpr int kMaxRanks = 16;
constexpr size_t kSlotBytes = size_t{1} << 18;  // what a rank shows the others at once

enum class Kind : int { none, all_reduce, reduce_scatter, all_gather, broadcast };

/// What a rank calls; the same on all of them, or something is wrong with the program.
struct Call {
  Kind kind = Kind::none;
  ncclDataType_t type = ncclUint8;
  size_t count = 0;
  int root = -1;
  bool operator==(const Call&) const = default;
};

/// What went wrong, as NCCL would say it. Thrown inside the emulation.
struct Failure : std::runtime_error {
  ncclResult_t result;
  Failure(ncclResult_t r, const std::string& text) : std::runtime_error("emulated NCCL: " + text), result(r) {}
};

/// The memory that the ranks of a communicator share. All of it is zero at first.
struct Shared {
  struct Rank {
    std::atomic<int> joined;         ///< ranks of the communicator as this one was told; 0: not here yet
    std::atomic<unsigned long> met;  ///< meetings that it has come to
    char device[16];                 ///< uuid
    Call call;
    unsigned char slot[kSlotBytes];
  };
  std::atomic<int> aborted;
  Rank ranks[kMaxRanks];
};

/// Opens or makes the memory of that name. The name goes when `unlink_shared` was called and the memory with its last
/// user.
Shared* open_shared(const std::string& name);
void close_shared(Shared* shared);
void unlink_shared(const std::string& name);

/// Returns when all ranks have come to this meeting. Failure when one has not within LLMZ_EMULATED_NCCL_TIMEOUT seconds
/// (60 without it), or has given up.
void meet(Shared& shared, int rank, int ranks);

size_t type_bytes(ncclDataType_t type);
/// out[i] = sum over ranks, in the order of ranks, of the elements that begin `offset` bytes into their slots. bf16 is
/// summed in fp32, so that rounding comes once.
void sum_slots(const Shared& shared, int ranks, size_t offset, size_t elements, ncclDataType_t type, void* out);

}  // namespace nccl_emulation
