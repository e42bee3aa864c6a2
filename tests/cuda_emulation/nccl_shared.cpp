#include "nccl_shared.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "llmz/core/dtype.h"

namespace nccl_emulation {
namespace {

double timeout_seconds() {
  const char* said = std::getenv("LLMZ_EMULATED_NCCL_TIMEOUT");
  return said == nullptr ? 60 : std::atof(said);
}

template <class T, class Sum>
void sum_as(const Shared& shared, int ranks, size_t offset, size_t elements, void* out) {
  for (size_t i = 0; i < elements; ++i) {
    Sum sum{};
    for (int r = 0; r < ranks; ++r) {
      T value;
      std::memcpy(&value, shared.ranks[r].slot + offset + i * sizeof(T), sizeof(T));
      sum = static_cast<Sum>(sum + static_cast<Sum>(value));
    }
    const T rounded = static_cast<T>(sum);
    std::memcpy(static_cast<char*>(out) + i * sizeof(T), &rounded, sizeof(T));
  }
}

}  // namespace

Shared* open_shared(const std::string& name) {
  const int file = shm_open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0) throw Failure(ncclSystemError, "no shared memory for the emulated NCCL");
  void* p = MAP_FAILED;
  if (ftruncate(file, sizeof(Shared)) == 0) {
    p = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  }
  close(file);
  if (p == MAP_FAILED) throw Failure(ncclSystemError, "no shared memory for the emulated NCCL");
  return static_cast<Shared*>(p);
}

void close_shared(Shared* shared) { munmap(shared, sizeof(Shared)); }

void unlink_shared(const std::string& name) { shm_unlink(name.c_str()); }

void meet(Shared& shared, int rank, int ranks) {
  using Clock = std::chrono::steady_clock;
  const unsigned long turn = shared.ranks[rank].met.fetch_add(1) + 1;
  const auto end = Clock::now() + std::chrono::duration<double>(timeout_seconds());
  for (int other = 0; other < ranks; ++other) {
    for (int tries = 0; shared.ranks[other].met.load() < turn; ++tries) {
      if (shared.aborted.load() != 0) throw Failure(ncclRemoteError, "another rank has aborted the communicator");
      if (Clock::now() > end) {
        throw Failure(ncclRemoteError, "rank " + std::to_string(other) + " did not come within " +
                                           std::to_string(timeout_seconds()) + " s");
      }
      if (tries < 100) {
        std::this_thread::yield();
      } else {
        std::this_thread::sleep_for(std::chrono::microseconds(50));
      }
    }
  }
}

size_t type_bytes(ncclDataType_t type) {
  switch (type) {
    case ncclUint8: return 1;
    case ncclBfloat16: return 2;
    case ncclInt32:
    case ncclFloat32: return 4;
    case ncclFloat64: return 8;
  }
  throw Failure(ncclInvalidArgument, "a data type that the emulated NCCL does not have");
}

void sum_slots(const Shared& shared, int ranks, size_t offset, size_t elements, ncclDataType_t type, void* out) {
  switch (type) {
    case ncclUint8: return sum_as<unsigned char, unsigned>(shared, ranks, offset, elements, out);
    case ncclInt32: return sum_as<int, unsigned>(shared, ranks, offset, elements, out);
    case ncclFloat32: return sum_as<float, float>(shared, ranks, offset, elements, out);
    case ncclFloat64: return sum_as<double, double>(shared, ranks, offset, elements, out);
    case ncclBfloat16: return sum_as<llmz::bf16, float>(shared, ranks, offset, elements, out);
  }
}

}  // namespace nccl_emulation
