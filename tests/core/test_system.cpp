#include "llmz/core/system.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>

#include "catch.h"
#include "llmz/core/version.h"
#include "src/core/system_files.h"

using namespace llmz;
namespace fs = std::filesystem;

namespace {

constexpr std::int64_t kMiB = 1024 * 1024;

/// A made-up machine: a folder with the files of /proc and /sys that matter.
class Machine {
 public:
  explicit Machine(const std::string& name)
      : root_(fs::temp_directory_path() / ("llmz_system_" + name + "_" + std::to_string(getpid()))) {
    fs::remove_all(root_);
    write("proc/meminfo", "MemTotal: 8388608 kB\nMemFree: 1 kB\nMemAvailable: 4194304 kB\n");
    write("sys/devices/system/cpu/online", "0-7\n");
  }
  ~Machine() { fs::remove_all(root_); }
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  void write(const std::string& path, const std::string& text) const {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  /// Logical processors i and i + 4 share a core.
  void write_hyper_threads() const {
    for (int cpu = 0; cpu < 8; ++cpu) {
      const std::string pair = std::to_string(cpu % 4) + "," + std::to_string(cpu % 4 + 4) + "\n";
      write("sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list", pair);
    }
  }
  const fs::path& root() const { return root_; }

 private:
  fs::path root_;
};

const std::string kV3 = "avx avx2 fma bmi1 bmi2 f16c movbe abm";
const std::string kV4 = kV3 + " avx512f avx512bw avx512cd avx512dq avx512vl";

}  // namespace

TEST_CASE("a core's two hyper-threads count once, and only usable processors count", "[core][system]") {
  const Machine machine("cores");
  machine.write_hyper_threads();
  const CpuInfo all = system_files::read_cpu_info(machine.root(), {0, 1, 2, 3, 4, 5, 6, 7});
  CHECK(all.logical_online == 8);
  CHECK(all.logical_usable == 8);
  CHECK(all.physical_usable == 4);
  CHECK(all.threads() == 4);
  const CpuInfo some = system_files::read_cpu_info(machine.root(), {1, 5, 6});
  CHECK(some.logical_online == 8);
  CHECK(some.logical_usable == 3);
  CHECK(some.physical_usable == 2);
}

TEST_CASE("without topology files every logical processor is a core", "[core][system]") {
  const Machine machine("flat");
  CHECK(system_files::read_cpu_info(machine.root(), {0, 3}).physical_usable == 2);
}

TEST_CASE("the instruction set level needs all of its features", "[core][system]") {
  const Machine machine("isa");
  const auto isa = [&](const std::string& flags) {
    machine.write("proc/cpuinfo", "processor : 0\nmodel name : Made-Up 9000\nflags : fpu " + flags + "\n");
    return system_files::read_cpu_info(machine.root(), {0}).isa;
  };
  CHECK(isa("sse2") == "baseline");
  CHECK(isa("avx2 fma") == "baseline");
  CHECK(isa(kV3) == "avx2");
  CHECK(isa(kV3 + " avx512f") == "avx2");
  CHECK(isa(kV4 + " avx512_bf16") == "avx512");
  const CpuInfo info = system_files::read_cpu_info(machine.root(), {0});
  CHECK(info.model == "Made-Up 9000");
  CHECK(info.features == "avx avx2 fma avx512f avx512_bf16");
}

TEST_CASE("control groups of version 2: the tightest limit on the way up holds", "[core][system]") {
  const Machine machine("v2");
  machine.write("proc/self/cgroup", "0::/outer/inner\n");
  machine.write("sys/fs/cgroup/outer/inner/cpu.max", "max 100000\n");
  machine.write("sys/fs/cgroup/outer/cpu.max", "250000 100000\n");
  machine.write("sys/fs/cgroup/outer/inner/memory.max", std::to_string(1024 * kMiB));
  machine.write("sys/fs/cgroup/outer/inner/memory.current", std::to_string(700 * kMiB));
  machine.write("sys/fs/cgroup/outer/inner/memory.stat",
                "active_file 5\ninactive_file " + std::to_string(100 * kMiB) + "\n");
  machine.write("sys/fs/cgroup/outer/memory.max", "max\n");
  const CpuInfo cpu = system_files::read_cpu_info(machine.root(), {0, 1, 2, 3});
  CHECK(cpu.quota == Approx(2.5));
  CHECK(cpu.threads() == 2);
  const MemoryInfo memory = system_files::read_memory_info(machine.root());
  CHECK(memory.limited_by_cgroup);
  CHECK(memory.total == 1024 * kMiB);
  CHECK(memory.available == 424 * kMiB);  // 1024 - 700 + 100 that can be given back
}

TEST_CASE("control groups of version 1, in a container that sees only its own mount", "[core][system]") {
  const Machine machine("v1");
  machine.write("proc/self/cgroup", "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n");
  machine.write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n");
  machine.write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  machine.write("sys/fs/cgroup/memory/memory.limit_in_bytes", std::to_string(2048 * kMiB));
  machine.write("sys/fs/cgroup/memory/memory.usage_in_bytes", std::to_string(48 * kMiB));
  const CpuInfo cpu = system_files::read_cpu_info(machine.root(), {0, 1});
  CHECK(cpu.quota == Approx(0.5));
  CHECK(cpu.threads() == 1);
  const MemoryInfo memory = system_files::read_memory_info(machine.root());
  CHECK(memory.total == 2048 * kMiB);
  CHECK(memory.available == 2000 * kMiB);
}

TEST_CASE("no limit leaves the machine's own numbers", "[core][system]") {
  const Machine machine("free");
  machine.write("proc/self/cgroup", "4:memory:/\n2:cpu:/\n0::/\n");
  machine.write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
  machine.write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  machine.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  CHECK(system_files::read_cpu_info(machine.root(), {0}).quota == 0.0);
  const MemoryInfo memory = system_files::read_memory_info(machine.root());
  CHECK_FALSE(memory.limited_by_cgroup);
  CHECK(memory.total == 8192 * kMiB);
  CHECK(memory.available == 4096 * kMiB);
}

TEST_CASE("this machine has processors and memory", "[core][system]") {
  const CpuInfo cpu = cpu_info();
  CHECK(cpu.physical_usable >= 1);
  CHECK(cpu.physical_usable <= cpu.logical_usable);
  CHECK(cpu.logical_usable <= cpu.logical_online);
  CHECK(cpu.threads() >= 1);
  const MemoryInfo memory = memory_info();
  CHECK(memory.total > 64 * kMiB);
  CHECK(memory.available > 0);
  CHECK(memory.available <= memory.total);
}

TEST_CASE("resident memory rises with what is written, and the peak stays", "[core][system]") {
  const ProcessMemory before = process_memory();
  REQUIRE(before.resident > 0);
  {
    const std::size_t bytes = 256 * kMiB;
    // Straight from the kernel and back: an allocator may keep what is freed.
    void* const address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(address != MAP_FAILED);
    const std::unique_ptr<void, std::function<void(void*)>> block(address, [=](void* p) { munmap(p, bytes); });
    for (std::size_t i = 0; i < bytes; i += 512) static_cast<char*>(address)[i] = static_cast<char>(i >> 9);
    // The kernel counts resident pages in batches of each thread: off by well under 16 MiB.
    CHECK(process_memory().resident - before.resident > 240 * kMiB);
  }
  const ProcessMemory after = process_memory();
  CHECK(after.resident < before.resident + 128 * kMiB);
  CHECK(after.peak > before.resident + 240 * kMiB);
}

TEST_CASE("GPUs or a reason, never neither", "[core][system]") {
  const CudaInfo info = cuda_info();
  CHECK(info.devices.empty() == !info.reason.empty());
  CHECK(info.built == !info.runtime.empty());
  if (!info.built) CHECK(info.reason.find("built without CUDA") != std::string::npos);
  for (const CudaDevice& device : info.devices) {
    CHECK_FALSE(device.name.empty());
    CHECK(device.memory > 0);
    CHECK(device.major >= 5);
  }
}

TEST_CASE("the program knows what it was made from", "[core][version]") {
  const BuildInfo info = build_info();
  CHECK_FALSE(info.version.empty());
  CHECK_FALSE(info.revision.empty());
  CHECK(version_line().find("llmz " + info.version + " (" + info.revision) == 0);
}

TEST_CASE("an empty environment variable is as one that is not set", "[core][system]") {
  const char* name = "LLMZ_TEST_VARIABLE";
  ::unsetenv(name);
  CHECK(environment(name) == nullptr);
  ::setenv(name, "", 1);
  CHECK(environment(name) == nullptr);
  ::setenv(name, "word", 1);
  CHECK(std::string(environment(name)) == "word");
  ::unsetenv(name);
}
