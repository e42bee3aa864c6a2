#include "llmz/core/system.h"

#include <sched.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <memory>
#include <thread>

#include "llmz/core/error.h"
#include "src/core/system_files.h"

namespace llmz {
namespace {

struct NamedWish {
  std::string_view name;
  DeviceWish::Kind kind;
};
constexpr NamedWish kWishes[] = {
    {"auto", DeviceWish::Kind::automatic}, {"cpu", DeviceWish::Kind::cpu}, {"cuda", DeviceWish::Kind::some_gpu}};
constexpr std::string_view kNumberedGpu = "cuda:";

constexpr int kMaxProcessors = 8192;  // what the Linux kernel can be built for on x86-64

/// The logical processors that the scheduler may put this process on (taskset, Slurm, docker --cpuset-cpus).
std::vector<int> affinity() {
  struct Free {
    void operator()(cpu_set_t* set) const { CPU_FREE(set); }
  };
  const std::unique_ptr<cpu_set_t, Free> set(CPU_ALLOC(kMaxProcessors));
  const std::size_t bytes = CPU_ALLOC_SIZE(kMaxProcessors);
  std::vector<int> usable;
  if (set && sched_getaffinity(0, bytes, set.get()) == 0) {
    for (int cpu = 0; cpu < kMaxProcessors; ++cpu) {
      if (CPU_ISSET_S(cpu, bytes, set.get())) usable.push_back(cpu);
    }
  }
  if (usable.empty()) {
    const int count = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
    for (int cpu = 0; cpu < count; ++cpu) usable.push_back(cpu);
  }
  return usable;
}

}  // namespace

int CpuInfo::threads() const {
  int threads = std::max(1, physical_usable);
  if (quota > 0) threads = std::min(threads, std::max(1, static_cast<int>(quota)));
  return threads;
}

CpuInfo cpu_info() { return system_files::read_cpu_info("/", affinity()); }
MemoryInfo memory_info() { return system_files::read_memory_info("/"); }
ProcessMemory process_memory() { return system_files::read_process_memory("/"); }

const char* environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr || *value == '\0' ? nullptr : value;
}

DeviceWish device_wish(std::string_view name) {
  for (const NamedWish& row : kWishes) {
    if (name == row.name) return {row.kind};
  }
  if (name.starts_with(kNumberedGpu)) {
    int index = -1;
    const char* const end = name.data() + name.size();
    const auto [last, error] = std::from_chars(name.data() + kNumberedGpu.size(), end, index);
    if (error == std::errc() && last == end && index >= 0) return {DeviceWish::Kind::this_gpu, index};
  }
  fail("no such device; allowed: auto, cpu, cuda, cuda:0, cuda:1 …");
}

Device device_from_name(std::string_view name) {
  const DeviceWish wish = device_wish(name);
  switch (wish.kind) {
    case DeviceWish::Kind::cpu: return {};
    case DeviceWish::Kind::automatic: return cuda_info().devices.empty() ? Device{} : Device{DeviceType::cuda, 0};
    case DeviceWish::Kind::some_gpu:
    case DeviceWish::Kind::this_gpu: return {DeviceType::cuda, wish.index};
  }
  return {};
}

}  // namespace llmz
