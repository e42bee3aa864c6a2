#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <cusolverDn.h>

#include <algorithm>
#include <cstring>
#include <string_view>

#include "llmz/core/error.h"
#include "llmz/core/gpu.h"
#include "llmz/core/system.h"
#include "llmz/core/version.h"

namespace llmz {
namespace {

constexpr int kOldestCapability = 80;           // Ampere: bf16 tensor cores, asynchronous copies
constexpr size_t kSlotBytes = size_t{1} << 20;  // larger transfers pass through the slots in pieces

void must(cudaError_t error, const char* doing) {
  if (error == cudaSuccess) return;
  fail("CUDA: {} failed: {} ({})", doing, cudaGetErrorString(error), cudaGetErrorName(error));
}

int attribute(cudaDeviceAttr what, int device) {
  int value = 0;
  must(cudaDeviceGetAttribute(&value, what, device), "reading a device attribute");
  return value;
}

/// That the device exists, in words that say what to do.
void check_device(int index) {
  const CudaInfo info = cuda_info();
  check(!info.devices.empty(), "a GPU is asked for, but {}", info.reason);
  check(index >= 0 && index < static_cast<int>(info.devices.size()),
        "cuda:{} is asked for, but this process sees {} GPU{}: cuda:0{}", index, info.devices.size(),
        info.devices.size() == 1 ? "" : "s",
        info.devices.size() == 1 ? "" : fmt::format(" to cuda:{}", info.devices.size() - 1));
  const CudaDevice& device = info.devices[static_cast<size_t>(index)];
  check(10 * device.major + device.minor >= kOldestCapability,
        "cuda:{} is a {} of compute capability {}.{}; llmz needs 8.0 (Ampere) or newer", index, device.name,
        device.major, device.minor);
}

/// What LLMZ_ATTENTION says.
Gpu::Attention asked_attention() {
  const char* variable = environment("LLMZ_ATTENTION");
  const std::string_view word = variable == nullptr ? "auto" : variable;
  if (word == "auto") return Gpu::Attention::automatic;
  if (word == "own") return Gpu::Attention::own;
  check(word == "cudnn", "LLMZ_ATTENTION is '{}'; it must be auto, cudnn or own", word);
  for (const BuildComponent& c : build_info().components) {
    if (c.name == "CUDNN") check(c.on, "LLMZ_ATTENTION asks for cuDNN, which this build lacks: {}", c.detail);
  }
  return Gpu::Attention::cudnn;
}

}  // namespace

Gpu::Gpu(int index) : index_(index) {
  check_device(index);
  must(cudaSetDevice(index), "selecting the device");
  multiprocessors_ = attribute(cudaDevAttrMultiProcessorCount, index);
  compute_capability_ =
      10 * attribute(cudaDevAttrComputeCapabilityMajor, index) + attribute(cudaDevAttrComputeCapabilityMinor, index);
  shared_memory_limit_ = static_cast<size_t>(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, index));
  must(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream");
  must(cudaMallocHost(reinterpret_cast<void**>(&staging_), kSlots * kSlotBytes), "allocating pinned memory");
  for (CUevent_st*& event : sent_) must(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "making an event");
  const char* synchronous = environment("LLMZ_CUDA_SYNC");
  synchronous_ = synchronous != nullptr && std::string_view(synchronous) != "0";
  // Now, not at first use: they take device memory, of which the arena may leave little.
  blas();
  solver();
  attention_ = asked_attention();
}

Gpu::~Gpu() {
  attention_graphs_.reset();  // cuDNN's handle is bound to the stream
  if (solver_ != nullptr) cusolverDnDestroy(solver_);
  if (blas_ != nullptr) cublasLtDestroy(blas_);
  for (CUevent_st* event : sent_) {
    if (event != nullptr) cudaEventDestroy(event);
  }
  if (staging_ != nullptr) cudaFreeHost(staging_);
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

cublasLtContext* Gpu::blas() {
  if (blas_ == nullptr) check(cublasLtCreate(&blas_) == CUBLAS_STATUS_SUCCESS, "cuBLASLt does not start");
  return blas_;
}

cusolverDnContext* Gpu::solver() {
  if (solver_ == nullptr) {
    check(cusolverDnCreate(&solver_) == CUSOLVER_STATUS_SUCCESS, "cuSOLVER does not start");
    check(cusolverDnSetStream(solver_, stream_) == CUSOLVER_STATUS_SUCCESS, "cuSOLVER takes no stream");
  }
  return solver_;
}

void* Gpu::allocate(size_t bytes) {
  must(cudaSetDevice(index_), "selecting the device");
  void* p = nullptr;
  const cudaError_t error = cudaMalloc(&p, bytes);
  if (error == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // it would be reported again by the next launch
    size_t available = 0, total = 0;
    must(cudaMemGetInfo(&available, &total), "asking for free memory");
    constexpr double kGiB = 1u << 30;
    fail(
        "cuda:{} has {:.2f} of its {:.2f} GiB free, and the plan needs {:.2f}; a smaller micro_batch or a leaner "
        "'activations' setting needs less (see `llmz plan`)",
        index_, static_cast<double>(available) / kGiB, static_cast<double>(total) / kGiB,
        static_cast<double>(bytes) / kGiB);
  }
  must(error, "allocating device memory");
  fill(p, 0, bytes);
  return p;
}

void Gpu::release(void* p) noexcept { cudaFree(p); }

void Gpu::copy_to_host(void* to, const void* from, size_t bytes) {
  auto* out = static_cast<std::byte*>(to);
  const auto* in = static_cast<const std::byte*>(from);
  synchronize();  // the slots are free then
  while (bytes > 0) {
    const size_t n = std::min(bytes, kSlots * kSlotBytes);
    must(cudaMemcpyAsync(staging_, in, n, cudaMemcpyDeviceToHost, stream_), "copying to the host");
    synchronize();
    std::memcpy(out, staging_, n);
    out += n, in += n, bytes -= n;
  }
}

void Gpu::copy_to_device(void* to, const void* from, size_t bytes) {
  auto* out = static_cast<std::byte*>(to);
  const auto* in = static_cast<const std::byte*>(from);
  while (bytes > 0) {
    const size_t n = std::min(bytes, kSlotBytes);
    std::byte* const slot = staging_ + next_slot_ * kSlotBytes;
    must(cudaEventSynchronize(sent_[next_slot_]), "waiting for an earlier copy");
    std::memcpy(slot, in, n);
    must(cudaMemcpyAsync(out, slot, n, cudaMemcpyHostToDevice, stream_), "copying to the device");
    must(cudaEventRecord(sent_[next_slot_], stream_), "recording an event");
    next_slot_ = (next_slot_ + 1) % kSlots;
    out += n, in += n, bytes -= n;
  }
}

void Gpu::copy_on_device(void* to, const void* from, size_t bytes) {
  must(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_), "copying on the device");
}

void Gpu::fill(void* p, int byte, size_t bytes) {
  must(cudaMemsetAsync(p, byte, bytes, stream_), "filling device memory");
}

void Gpu::synchronize() { must(cudaStreamSynchronize(stream_), "waiting for the device"); }

void Gpu::check_launch(const char* kernel) {
  cudaError_t error = cudaGetLastError();
  if (error == cudaSuccess && synchronous_) error = cudaStreamSynchronize(stream_);
  if (error == cudaSuccess) return;
  fail("CUDA kernel {}: {} ({})", kernel, cudaGetErrorString(error), cudaGetErrorName(error));
}

void Gpu::begin_capture() {
  must(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "beginning a graph");
}

std::unique_ptr<Gpu::Graph> Gpu::end_capture() {
  cudaGraph_t graph = nullptr;
  must(cudaStreamEndCapture(stream_, &graph), "ending a graph");
  cudaGraphExec_t executable = nullptr;
  const cudaError_t error = cudaGraphInstantiate(&executable, graph, 0);
  cudaGraphDestroy(graph);
  must(error, "making a graph");
  return std::make_unique<Graph>(executable);
}

void Gpu::abandon_capture() noexcept {
  cudaGraph_t graph = nullptr;
  cudaStreamEndCapture(stream_, &graph);
  if (graph != nullptr) cudaGraphDestroy(graph);
  cudaGetLastError();
}

void Gpu::launch(const Graph& graph) {
  must(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph.executable()), stream_), "launching a graph");
}

Gpu::Graph::~Graph() { cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(executable_)); }

}  // namespace llmz
