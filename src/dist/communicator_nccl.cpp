#include <cuda_runtime_api.h>
#include <nccl.h>

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#include "src/dist/implementations.h"

namespace llmz::dist {
namespace {

constexpr auto kWatchEvery = std::chrono::milliseconds(500);
// The world's own watch knows which rank died and says so; only what it does not see is told here.
constexpr auto kWorldFirst = std::chrono::seconds(3);

void must_run(cudaError_t error, const char* doing) {
  if (error == cudaSuccess) return;
  fail("CUDA: {} failed: {} ({})", doing, cudaGetErrorString(error), cudaGetErrorName(error));
}

std::string error_text(ncclResult_t result, ncclComm_t comm) {
  const char* last = ncclGetLastError(comm);
  const bool more = last != nullptr && last[0] != 0;
  std::string text = ncclGetErrorString(result);
  if (more) text += fmt::format(" ({})", last);
  for (char& c : text) {
    if (c == '\n') c = ' ';  // an Error is one line
  }
  return text;
}

std::string hex(const ncclUniqueId& id) {
  std::string text;
  for (const char c : id.internal) text += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return text;
}

ncclUniqueId from_hex(const std::string& text) {
  ncclUniqueId id;
  check(text.size() == 2 * sizeof id.internal, "the unique id of NCCL came as {} characters", text.size());
  for (size_t i = 0; i < sizeof id.internal; ++i) {
    id.internal[i] = static_cast<char>(std::stoi(text.substr(2 * i, 2), nullptr, 16));
  }
  return id;
}

/// A type whose sums NCCL makes.
ncclDataType_t summed_type(DType t) {
  switch (t) {
    case DType::f32: return ncclFloat32;
    case DType::bf16: return ncclBfloat16;
    case DType::f64: return ncclFloat64;
    case DType::i32: return ncclInt32;
    case DType::u8: return ncclUint8;
  }
  fail("NCCL does not sum {}", dtype_name(t));
}

/// Collectives on a stream of their own. Its place in the order of the GPU's stream is held by two events: it waits for
/// what was given to the GPU before a call, and the GPU waits for it where the result is wanted. The host never waits.
class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(World& world, Gpu& gpu)
      : Communicator(world.rank(), world.size()), world_(world), gpu_(gpu), unwinding_(std::uncaught_exceptions()) {
    try {
      prepare_stream();
      connect();
    } catch (...) {
      release();
      throw;
    }
    watch_ = std::thread([this] { watch(); });
  }

  ~NcclCommunicator() override {
    {
      const std::lock_guard lock(mutex_);
      leaving_ = true;
    }
    left_.notify_all();
    watch_.join();
    release();
  }

  std::string_view name() const override { return "NCCL"; }

 private:
  /// Ahead of the kernels: these fill the GPU, and a collective that waits for a gap makes all other ranks wait.
  void prepare_stream() {
    must_run(cudaSetDevice(gpu_.index()), "selecting the device");
    int least = 0, greatest = 0;
    must_run(cudaDeviceGetStreamPriorityRange(&least, &greatest), "asking for stream priorities");
    must_run(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, greatest), "making a stream");
    must_run(cudaEventCreateWithFlags(&given_, cudaEventDisableTiming), "making an event");
    must_run(cudaEventCreateWithFlags(&done_, cudaEventDisableTiming), "making an event");
  }

  void connect() {
    std::string text;
    world_.together([&] {
      if (!world_.leads()) return;
      ncclUniqueId id;
      must(ncclGetUniqueId(&id), "ncclGetUniqueId");
      text = hex(id);
    });
    const ncclUniqueId id = from_hex(world_.broadcast(text));
    // Not together(): when it fails here, the others may be inside it for ever, until this rank gives up.
    const ncclResult_t result = ncclCommInitRank(&comm_, size(), id, rank());
    if (result == ncclSuccess) return;
    comm_ = nullptr;
    fail("NCCL does not connect {} on cuda:{} to the others: {}; NCCL_DEBUG=INFO in the environment tells more",
         world_.who(), gpu_.index(), error_text(result, nullptr));
  }

  void must(ncclResult_t result, const char* call) const {
    if (result == ncclSuccess) return;
    // Another rank is the cause: the world knows which, and says so first.
    if (result == ncclRemoteError || result == ncclSystemError) std::this_thread::sleep_for(kWorldFirst);
    fail("NCCL: {} failed on {}: {}", call, world_.who(), error_text(result, comm_));
  }

  void do_start(std::span<const Reduction> bucket) override {
    begin();
    in_group([&] {
      for (const Reduction& r : bucket) reduce(r);
    });
  }

  void do_finish() override {
    if (!std::exchange(started_, false)) return;
    must_run(cudaEventRecord(done_, stream_), "recording an event");
    must_run(cudaStreamWaitEvent(gpu_.stream(), done_, 0), "waiting for a collective");
  }

  void do_all_gather_rows(std::span<const Tensor> tensors) override {
    begin();
    in_group([&] {
      for (const Tensor& t : tensors) {
        const size_t part = t.bytes() / static_cast<size_t>(size());
        auto* const all = static_cast<std::byte*>(t.data);
        must(ncclAllGather(all + static_cast<size_t>(rank()) * part, all, part, ncclUint8, comm_, stream_),
             "ncclAllGather");
      }
    });
    do_finish();
  }

  void do_broadcast(std::span<const Tensor> tensors, int root) override {
    begin();
    in_group([&] {
      for (const Tensor& t : tensors) {
        must(ncclBroadcast(t.data, t.data, t.bytes(), ncclUint8, root, comm_, stream_), "ncclBroadcast");
      }
    });
    do_finish();
  }

  /// What follows on the communication stream comes after all that the GPU was given so far.
  void begin() {
    must_run(cudaEventRecord(given_, gpu_.stream()), "recording an event");
    must_run(cudaStreamWaitEvent(stream_, given_, 0), "waiting for the GPU's stream");
    started_ = true;
  }

  /// The calls of `body` become one launch.
  template <class Body>
  void in_group(Body&& body) {
    must(ncclGroupStart(), "ncclGroupStart");
    try {
      body();
    } catch (...) {
      ncclGroupEnd();
      throw;
    }
    must(ncclGroupEnd(), "ncclGroupEnd");
  }

  void reduce(const Reduction& r) {
    const Tensor& t = r.tensor;
    const ncclDataType_t type = summed_type(t.dtype);
    const auto count = static_cast<size_t>(t.numel());
    if (!r.by_rows) {
      must(ncclAllReduce(t.data, t.data, count, type, ncclSum, comm_, stream_), "ncclAllReduce");
      return;
    }
    // In place: NCCL takes it so when the result is this rank's part of what is sent.
    auto* const mine = static_cast<std::byte*>(t.data) + static_cast<size_t>(rank()) * (t.bytes() / ranks());
    must(ncclReduceScatter(t.data, mine, count / ranks(), type, ncclSum, comm_, stream_), "ncclReduceScatter");
  }
  size_t ranks() const { return static_cast<size_t>(size()); }

  // --- when it goes wrong -------------------------------------------------------------------------------------------

  ncclResult_t asynchronous_error() const {
    ncclResult_t error = ncclSuccess;
    const ncclResult_t asked = ncclCommGetAsyncError(comm_, &error);
    return asked != ncclSuccess ? asked : error == ncclInProgress ? ncclSuccess : error;
  }

  /// A kernel of NCCL waits for its peers for ever: when one is lost, only a word from outside ends this rank.
  void watch() {
    std::unique_lock lock(mutex_);
    while (!left_.wait_for(lock, kWatchEvery, [&] { return leaving_; })) {
      const ncclResult_t error = asynchronous_error();
      if (error == ncclSuccess) continue;
      if (left_.wait_for(lock, kWorldFirst, [&] { return leaving_; })) return;
      std::fprintf(stderr, "llmz: %s: NCCL: a collective failed: %s\n", world_.who().c_str(),
                   error_text(error, comm_).c_str());
      world_.abort();
    }
  }

  void release() noexcept {
    if (comm_ != nullptr) {
      // After an error, here or on another rank, what is on the stream may never end.
      const bool healthy = std::uncaught_exceptions() == unwinding_ && asynchronous_error() == ncclSuccess;
      if (healthy && cudaStreamSynchronize(stream_) == cudaSuccess) {
        ncclCommDestroy(comm_);
      } else {
        ncclCommAbort(comm_);
      }
    }
    if (done_ != nullptr) cudaEventDestroy(done_);
    if (given_ != nullptr) cudaEventDestroy(given_);
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
  }

  World& world_;
  Gpu& gpu_;
  int unwinding_;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t given_ = nullptr, done_ = nullptr;
  ncclComm_t comm_ = nullptr;
  bool started_ = false;  ///< something that the GPU's stream does not wait for yet
  std::mutex mutex_;
  std::condition_variable left_;
  bool leaving_ = false;
  std::thread watch_;
};

}  // namespace

bool nccl_is_built() { return true; }

std::string nccl_library() {
  int version = 0;  // 2.28.9 as 22809
  const ncclResult_t result = ncclGetVersion(&version);
  if (result != ncclSuccess) return ncclGetErrorString(result);
  return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

std::unique_ptr<Communicator> make_nccl_communicator(World& world, Memory& memory) {
  check(memory.gpu() != nullptr, "NCCL needs the memory of a GPU, and this one is a plan");
  return std::make_unique<NcclCommunicator>(world, *memory.gpu());
}

}  // namespace llmz::dist
