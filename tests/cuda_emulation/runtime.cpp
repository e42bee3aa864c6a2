#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "cuda_runtime.h"

struct CUgraph_st {
  std::vector<std::function<void()>> work;
  std::vector<cudaStream_t> joined;  ///< while capturing: streams that came in by waiting for an event of it
};
struct CUgraphExec_st : CUgraph_st {};
struct CUstream_st {
  CUgraph_st* capture = nullptr;
  size_t work = 0;    ///< captured from here
  size_t waited = 0;  ///< of that, what another stream of the capture waits for
};
struct CUevent_st {
  bool recorded = false;
  CUgraph_st* capture = nullptr;  ///< in which it was recorded
  cudaStream_t stream = nullptr;  ///< where, and after how much of its work
  size_t work = 0;
};

namespace cuda_emulation {

void run_kernel(const char* name, dim3 grid, dim3 threads, size_t shared_bytes, const std::function<void()>& body);

void submit(cudaStream_t stream, std::function<void()> work) {
  if (stream != nullptr && stream->capture != nullptr) {
    ++stream->work;
    stream->capture->work.push_back(std::move(work));
  } else {
    work();
  }
}

namespace {
cudaError_t last_error = cudaSuccess;
}

void launch(cudaStream_t stream, const char* name, dim3 grid, dim3 block, size_t shared_bytes,
            std::function<void()> thread) {
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  // What the hardware refuses.
  if (threads == 0 || threads > 1024 || block.z > 64 || uint64_t{grid.x} * grid.y * grid.z == 0 || grid.y > 65535 ||
      grid.z > 65535 || grid.x > 0x7fffffffu) {
    last_error = cudaErrorInvalidConfiguration;
    return;
  }
  submit(stream, [=] { run_kernel(name, grid, block, shared_bytes, thread); });
}

}  // namespace cuda_emulation

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorInvalidResourceHandle: return "waiting for an event that was never recorded";
    case cudaErrorStreamCaptureUnjoined: return "capture was not rejoined to the original stream";
    case cudaErrorStreamCaptureIsolation: return "dependency created on uncaptured work in another stream";
    default: return "error";
  }
}
const char* cudaGetErrorName(cudaError_t) { return "emulated"; }
cudaError_t cudaGetLastError() { return std::exchange(cuda_emulation::last_error, cudaSuccess); }
cudaError_t cudaDriverGetVersion(int* version) { return *version = CUDART_VERSION, cudaSuccess; }

namespace {

constexpr size_t kMemory = size_t{8} << 30;
thread_local int current_device = 0;

/// As many as LLMZ_EMULATED_GPUS says; one without it.
int device_count() {
  const char* said = std::getenv("LLMZ_EMULATED_GPUS");
  return said == nullptr ? 1 : std::clamp(std::atoi(said), 0, 16);
}

}  // namespace

cudaError_t cudaGetDeviceCount(int* count) {
  *count = device_count();
  return *count > 0 ? cudaSuccess : cudaErrorNoDevice;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device < 0 || device >= device_count()) return cudaErrorInvalidDevice;
  std::strcpy(properties->name, "emulated GPU (kernels run on the CPU)");
  std::memset(properties->uuid.bytes, 0, sizeof properties->uuid.bytes);
  properties->uuid.bytes[15] = static_cast<char>(device + 1);
  properties->totalGlobalMem = kMemory;
  properties->major = 9;
  properties->minor = 0;
  properties->multiProcessorCount = 4;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = 4; break;
    case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
    case cudaDevAttrComputeCapabilityMinor: *value = 0; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = 227 * 1024; break;
  }
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= device_count()) return cudaErrorInvalidDevice;
  return current_device = device, cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) { return *device = current_device, cudaSuccess; }
cudaError_t cudaMalloc(void** p, size_t bytes) {
  if (bytes > kMemory) return cudaErrorMemoryAllocation;
  *p = std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  return *p == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}
cudaError_t cudaFree(void* p) { return std::free(p), cudaSuccess; }
cudaError_t cudaMallocHost(void** p, size_t bytes) { return cudaMalloc(p, bytes); }
cudaError_t cudaFreeHost(void* p) { return cudaFree(p); }
cudaError_t cudaMemGetInfo(size_t* available, size_t* total) { return *available = *total = kMemory, cudaSuccess; }
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  cuda_emulation::submit(stream, [=] { std::memcpy(to, from, bytes); });
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* p, int byte, size_t bytes, cudaStream_t stream) {
  cuda_emulation::submit(stream, [=] { std::memset(p, byte, bytes); });
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) { return *stream = new CUstream_st, cudaSuccess; }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) {
  return cudaStreamCreateWithFlags(stream, flags);
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  return *least = 0, *greatest = -5, cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) { return delete stream, cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return stream->capture == nullptr ? cudaSuccess : cudaErrorInvalidValue;
}

namespace {
std::vector<CUgraph_st*> captures;  // those that have not ended
}

// Everything runs at once, so what was recorded has always happened. What is kept is what shows a mistake.
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) { return *event = new CUevent_st, cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  *event = {.recorded = true, .capture = stream->capture, .stream = stream, .work = stream->work};
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return event->capture == nullptr ? cudaSuccess : cudaErrorInvalidValue;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) { return delete event, cudaSuccess; }
/// CUDA lets a stream wait for an event that was never recorded, which then orders nothing: here an error.
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  if (!event->recorded) return cudaErrorInvalidResourceHandle;
  if (event->capture == nullptr) return stream->capture == nullptr ? cudaSuccess : cudaErrorStreamCaptureIsolation;
  if (std::find(captures.begin(), captures.end(), event->capture) == captures.end()) return cudaErrorInvalidValue;
  if (stream->capture == nullptr) {
    stream->capture = event->capture;
    event->capture->joined.push_back(stream);
  }
  if (stream->capture != event->capture) return cudaErrorStreamCaptureIsolation;
  event->stream->waited = std::max(event->stream->waited, event->work);
  return cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  captures.push_back(stream->capture = new CUgraph_st);
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = stream->capture;
  *stream = {};
  captures.erase(std::remove(captures.begin(), captures.end(), *graph), captures.end());
  bool unjoined = false;
  for (cudaStream_t other : (*graph)->joined) {
    unjoined |= other->waited != other->work;
    *other = {};
  }
  if (!unjoined) return cudaSuccess;
  delete std::exchange(*graph, nullptr);
  return cudaErrorStreamCaptureUnjoined;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  return *executable = new CUgraphExec_st{{.work = graph->work, .joined = {}}}, cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return delete graph, cudaSuccess; }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) { return delete executable, cudaSuccess; }
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t) {
  for (const auto& work : executable->work) work();
  return cudaSuccess;
}
