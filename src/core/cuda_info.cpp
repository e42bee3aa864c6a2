#include <cuda_runtime_api.h>

#include <cstdlib>

#include <spdlog/fmt/fmt.h>

#include "llmz/core/system.h"

namespace llmz {
namespace {

/// CUDA writes 12.4 as 12040.
std::string version_text(int version) { return fmt::format("{}.{}", version / 1000, version % 1000 / 10); }

/// As nvidia-smi -L writes it: GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx.
std::string uuid_text(const cudaUUID_t& uuid) {
  std::string text = "GPU-";
  for (int i = 0; i < 16; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += fmt::format("{:02x}", static_cast<unsigned char>(uuid.bytes[i]));
  }
  return text;
}

/// Why the runtime sees no GPU, in words that say what to do.
std::string explain(cudaError_t error, const CudaInfo& info) {
  if (info.driver.empty()) return "no NVIDIA driver is loaded; install one, or run the container with GPU access";
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  switch (error) {
    case cudaErrorInsufficientDriver:
      return fmt::format(
          "the NVIDIA driver takes CUDA {} at most, older than this build's runtime {}; update the driver", info.driver,
          info.runtime);
    case cudaSuccess:
    case cudaErrorNoDevice:
      if (visible != nullptr) return fmt::format("CUDA_VISIBLE_DEVICES='{}' leaves no GPU; unset it", visible);
      return "the NVIDIA driver is loaded, but this process sees no GPU";
    default:
      return fmt::format("the CUDA runtime does not start: {} ({})", cudaGetErrorString(error),
                         cudaGetErrorName(error));
  }
}

}  // namespace

CudaInfo cuda_info() {
  CudaInfo info;
  info.built = true;
#ifdef LLMZ_CUDA_EMULATED
  info.emulated = true;
#endif
  info.runtime = version_text(CUDART_VERSION);
  int driver = 0;
  if (cudaDriverGetVersion(&driver) == cudaSuccess && driver > 0) info.driver = version_text(driver);

  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  for (int device = 0; error == cudaSuccess && device < count; ++device) {
    cudaDeviceProp properties;
    if (cudaGetDeviceProperties(&properties, device) != cudaSuccess) {
      info.devices.push_back({.name = "a GPU that does not answer"});  // keeps the numbers of those behind it
      continue;
    }
    info.devices.push_back({.name = properties.name,
                            .memory = static_cast<std::int64_t>(properties.totalGlobalMem),
                            .major = properties.major,
                            .minor = properties.minor,
                            .multiprocessors = properties.multiProcessorCount,
                            .identity = uuid_text(properties.uuid)});
  }
  if (info.devices.empty()) info.reason = explain(error, info);
  return info;
}

}  // namespace llmz
