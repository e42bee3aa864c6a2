#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "llmz/core/tensor.h"

namespace llmz {

/// The processors as this process may use them. What the system does not tell is 0 or "unknown".
struct CpuInfo {
  std::string model;        // "AMD EPYC 9354 32-Core Processor"
  std::string isa;          // widest that the kernels' clones can pick: "avx512" (x86-64-v4), "avx2" (v3), "baseline"
  std::string features;     // what speeds up matrix products, as the kernel names it: "avx2 fma avx512f avx512_bf16"
  int logical_online = 0;   // logical processors the machine runs
  int logical_usable = 0;   // of those, the ones in this process's affinity mask
  int physical_usable = 0;  // cores those make up: two hyper-threads of one core count once
  double quota = 0.0;       // processors' worth of time that control groups grant; 0: unlimited
  /// How many threads compute without getting in each other's way: usable cores, no more than the quota; at least 1.
  int threads() const;
};

/// Memory in bytes. Of the machine, or of the tightest control group around this process where that is less.
struct MemoryInfo {
  std::int64_t total = 0;
  std::int64_t available = 0;  // what a new allocation can still get without swapping
  bool limited_by_cgroup = false;
};

/// Resident memory of this process in bytes.
struct ProcessMemory {
  std::int64_t resident = 0;
  std::int64_t peak = 0;  // highest `resident` since the process started
};

struct CudaDevice {
  std::string name = {};
  std::int64_t memory = 0;  // bytes on the device
  int major = 0;            // compute capability, "9.0" of an H100
  int minor = 0;
  int multiprocessors = 0;
  std::string identity = {};  // its UUID as text, which no other GPU has, whatever number CUDA gives it in a process
};

/// The GPUs that this process sees, or why it sees none.
struct CudaInfo {
  bool built = false;     // whether this binary holds the CUDA backend
  bool emulated = false;  // whether its GPU is the CPU (tests/cuda_emulation)
  std::string runtime;    // version compiled against, "13.0"; empty when !built
  std::string driver;     // newest CUDA version that the installed driver takes, "12.4"; empty without a driver
  std::vector<CudaDevice> devices;
  std::string reason;  // one sentence when `devices` is empty, with what would mend it
};

CpuInfo cpu_info();
MemoryInfo memory_info();
ProcessMemory process_memory();

/// Never throws: a machine without GPU or driver, or a build without CUDA, is an answer, in `reason`. Takes up to a
/// second where there is a GPU, since the CUDA runtime starts.
CudaInfo cuda_info();

/// An environment variable; null where it is not set, or empty, which shells make of one that is not set elsewhere.
const char* environment(const char* name);

/// What the name of a device asks for.
struct DeviceWish {
  enum class Kind : uint8_t {
    automatic,  ///< "auto"
    cpu,        ///< "cpu"
    some_gpu,   ///< "cuda"
    this_gpu    ///< "cuda:2"
  };
  Kind kind = Kind::automatic;
  int index = 0;  ///< of `this_gpu`
};
/// Throws Error listing what is allowed for any other name.
DeviceWish device_wish(std::string_view name);

/// "cpu", "cuda" (the first GPU), "cuda:2", or "auto": the first GPU where this process sees one, else the CPU. Throws
/// Error for anything else; whether a named GPU is there is found out when it is opened.
Device device_from_name(std::string_view name);

}  // namespace llmz
