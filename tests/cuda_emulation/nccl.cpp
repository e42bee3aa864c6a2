#include "nccl.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "cuda_runtime.h"
#include "nccl_shared.h"

using namespace nccl_emulation;

struct ncclComm {
  Shared* shared = nullptr;
  int rank = 0, ranks = 0, device = 0;
  std::atomic<ncclResult_t> error = ncclSuccess;
};

namespace {

thread_local std::string last_error;
thread_local int group_depth = 0;
thread_local std::vector<std::function<void()>> group;

/// Runs `part`; what it throws becomes a result, and a text for ncclGetLastError.
template <class Part>
ncclResult_t guarded(Part&& part) {
  try {
    part();
    return ncclSuccess;
  } catch (const Failure& failure) {
    last_error = failure.what();
    return failure.result;
  }
}

void require(bool ok, ncclResult_t result, const char* text) {
  if (!ok) throw Failure(result, text);
}

std::string describe(const Call& call) {
  static const char* const names[] = {"nothing", "AllReduce", "ReduceScatter", "AllGather", "Broadcast"};
  return std::string(names[static_cast<int>(call.kind)]) + " of " + std::to_string(call.count) + " of type " +
         std::to_string(call.type) + (call.root >= 0 ? " from " + std::to_string(call.root) : "");
}

/// Real NCCL would hang, or mix up the data.
void compare_calls(const ncclComm& comm, const Call& call) {
  comm.shared->ranks[comm.rank].call = call;
  meet(*comm.shared, comm.rank, comm.ranks);
  for (int r = 0; r < comm.ranks; ++r) {
    const Call& other = comm.shared->ranks[r].call;
    if (other == call) continue;
    throw Failure(ncclInvalidUsage, "rank " + std::to_string(comm.rank) + " calls " + describe(call) + ", and rank " +
                                        std::to_string(r) + " " + describe(other));
  }
}

/// Takes its part out of what the ranks show of elements [begin, begin + n) of the sender's tensor.
void take(const ncclComm& comm, const Call& call, size_t begin, size_t n, unsigned char* receive) {
  const Shared& shared = *comm.shared;
  const size_t bytes = type_bytes(call.type);
  switch (call.kind) {
    case Kind::none: return;
    case Kind::all_reduce: return sum_slots(shared, comm.ranks, 0, n, call.type, receive + begin * bytes);
    case Kind::broadcast: std::memcpy(receive + begin * bytes, shared.ranks[call.root].slot, n * bytes); return;
    case Kind::all_gather:
      for (int r = 0; r < comm.ranks; ++r) {
        std::memcpy(receive + (static_cast<size_t>(r) * call.count + begin) * bytes, shared.ranks[r].slot, n * bytes);
      }
      return;
    case Kind::reduce_scatter: {
      const size_t mine = static_cast<size_t>(comm.rank) * call.count;
      const size_t from = std::max(begin, mine), to = std::min(begin + n, mine + call.count);
      if (from < to) {
        sum_slots(shared, comm.ranks, (from - begin) * bytes, to - from, call.type, receive + (from - mine) * bytes);
      }
    }
  }
}

/// Piece by piece: each rank shows a piece of its tensor, and all take what they need of all pieces.
void move(ncclComm& comm, const Call& call, const void* send, void* receive) {
  compare_calls(comm, call);
  const size_t bytes = type_bytes(call.type), piece = kSlotBytes / bytes;
  const size_t sent = call.count * static_cast<size_t>(call.kind == Kind::reduce_scatter ? comm.ranks : 1);
  for (size_t begin = 0; begin < sent; begin += piece) {
    const size_t n = std::min(piece, sent - begin);
    if (call.kind != Kind::broadcast || call.root == comm.rank) {
      std::memcpy(comm.shared->ranks[comm.rank].slot, static_cast<const char*>(send) + begin * bytes, n * bytes);
    }
    meet(*comm.shared, comm.rank, comm.ranks);
    take(comm, call, begin, n, static_cast<unsigned char*>(receive));
    meet(*comm.shared, comm.rank, comm.ranks);
  }
  meet(*comm.shared, comm.rank, comm.ranks);  // all have compared their calls before the next are written down
}

/// Work on the stream: it fails when it runs, which for a graph is at its launch.
void submit(ncclComm* comm, const Call& call, const void* send, void* receive, cudaStream_t stream) {
  require(comm->error == ncclSuccess, ncclInvalidUsage, "the communicator has failed before");
  int device = 0;
  cudaGetDevice(&device);
  require(device == comm->device, ncclInvalidUsage, "the communicator is of another device than the current one");
  cuda_emulation::submit(stream, [=] {
    try {
      move(*comm, call, send, receive);
    } catch (const Failure& failure) {
      comm->error = failure.result;
      throw;
    }
  });
}

ncclResult_t enqueue(ncclComm* comm, const Call& call, const void* send, void* receive, cudaStream_t stream) {
  return guarded([&] {
    require(comm != nullptr && stream != nullptr, ncclInvalidArgument, "no communicator, or no stream");
    require(call.count == 0 || (send != nullptr && receive != nullptr), ncclInvalidArgument, "no buffer");
    require(call.kind != Kind::broadcast || (call.root >= 0 && call.root < comm->ranks), ncclInvalidArgument,
            "no root");
    const auto work = [=] { submit(comm, call, send, receive, stream); };
    if (group_depth > 0) {
      group.emplace_back(work);
    } else {
      work();
    }
  });
}

std::string shared_name(const ncclUniqueId& id) { return "/llmz-nccl-" + std::string(id.internal); }

/// Two ranks on one device, and ranks that disagree about their number, are errors of NCCL too.
void check_peers(const ncclComm& comm) {
  const Shared& shared = *comm.shared;
  for (int r = 0; r < comm.ranks; ++r) {
    require(shared.ranks[r].joined == comm.ranks, ncclInvalidUsage, "ranks disagree about their number");
    require(r == comm.rank || std::memcmp(shared.ranks[r].device, shared.ranks[comm.rank].device, 16) != 0,
            ncclInvalidUsage, "Duplicate GPU detected");
  }
}

void join(ncclComm& comm, const ncclUniqueId& id) {
  comm.shared = open_shared(shared_name(id));
  Shared::Rank& mine = comm.shared->ranks[comm.rank];
  cudaDeviceProp properties;
  cudaGetDevice(&comm.device);
  cudaGetDeviceProperties(&properties, comm.device);
  std::memcpy(mine.device, properties.uuid.bytes, sizeof mine.device);
  require(mine.joined.exchange(comm.ranks) == 0, ncclInvalidUsage, "two processes have the same rank");
  meet(*comm.shared, comm.rank, comm.ranks);
  if (comm.rank == 0) unlink_shared(shared_name(id));
  check_peers(comm);
}

}  // namespace

ncclResult_t ncclGetVersion(int* version) {
  *version = NCCL_MAJOR * 10000;
  return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t result) {
  switch (result) {
    case ncclSuccess: return "no error";
    case ncclUnhandledCudaError: return "unhandled cuda error";
    case ncclSystemError: return "unhandled system error";
    case ncclInternalError: return "internal error";
    case ncclInvalidArgument: return "invalid argument";
    case ncclInvalidUsage: return "invalid usage";
    case ncclRemoteError: return "remote process exited or there was a network error";
    case ncclInProgress: return "NCCL operation in progress";
  }
  return "unknown result code";
}

const char* ncclGetLastError(ncclComm_t) { return last_error.c_str(); }

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  std::memset(id->internal, 0, sizeof id->internal);
  std::random_device random;
  for (int i = 0; i < 24; ++i) id->internal[i] = "0123456789abcdef"[random() % 16];
  return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank) {
  return guarded([&] {
    require(ranks >= 1 && ranks <= kMaxRanks && rank >= 0 && rank < ranks, ncclInvalidArgument, "no such rank");
    auto made = std::make_unique<ncclComm>();
    made->rank = rank, made->ranks = ranks;
    join(*made, id);
    *comm = made.release();
  });
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  close_shared(comm->shared);
  delete comm;
  return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
  comm->shared->aborted = 1;
  return ncclCommDestroy(comm);
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error) {
  *error = comm->error;
  if (*error == ncclSuccess && comm->shared->aborted != 0) *error = ncclRemoteError;
  return ncclSuccess;
}

ncclResult_t ncclGroupStart() { return ++group_depth, ncclSuccess; }

ncclResult_t ncclGroupEnd() {
  return guarded([] {
    require(group_depth > 0, ncclInvalidUsage, "a group ends that has not begun");
    if (--group_depth > 0) return;
    for (const auto& work : std::exchange(group, {})) work();
  });
}

ncclResult_t ncclAllReduce(const void* send, void* receive, size_t count, ncclDataType_t type, ncclRedOp_t,
                           ncclComm_t comm, cudaStream_t stream) {
  return enqueue(comm, {Kind::all_reduce, type, count, -1}, send, receive, stream);
}

ncclResult_t ncclReduceScatter(const void* send, void* receive, size_t receive_count, ncclDataType_t type, ncclRedOp_t,
                               ncclComm_t comm, cudaStream_t stream) {
  return enqueue(comm, {Kind::reduce_scatter, type, receive_count, -1}, send, receive, stream);
}

ncclResult_t ncclAllGather(const void* send, void* receive, size_t send_count, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream) {
  return enqueue(comm, {Kind::all_gather, type, send_count, -1}, send, receive, stream);
}

ncclResult_t ncclBroadcast(const void* send, void* receive, size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream) {
  return enqueue(comm, {Kind::broadcast, type, count, root}, send, receive, stream);
}
