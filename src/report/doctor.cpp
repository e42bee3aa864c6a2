#include "llmz/report/doctor.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <dnnl.h>
#include <omp.h>
#include <pcre2.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <Eigen/Core>
#include <filesystem>

#include "llmz/core/error.h"
#include "llmz/core/system.h"
#include "llmz/core/version.h"
#include "llmz/dist/world.h"
#include "llmz/engine/matmul_peak.h"
#include "llmz/ops/elementwise.h"
#include "llmz/ops/matmul.h"
#include "llmz/ops/threads.h"
#include "llmz/report/bench.h"
#include "llmz/run/placement.h"

namespace llmz::report {
namespace {

constexpr double kGiga = 1e9;
constexpr double kLittleMemory = 4 * kGiga;  // LLaMA-60M at 8×256 tokens takes about 1.5 GB, and has to fit with ease
constexpr double kLittleDisk = 5 * kGiga;    // a few checkpoints of LLaMA-130M with its moments

Finding processor(const CpuInfo& cpu) {
  std::string what = fmt::format("{}: {} cores usable ({} of {} logical processors)", cpu.model, cpu.physical_usable,
                                 cpu.logical_usable, cpu.logical_online);
  if (cpu.quota > 0) what += fmt::format(", {:g} processors' time granted", cpu.quota);
  return {State::ok, "processor", what,
          fmt::format("{} threads compute without waiting for each other", cpu.threads())};
}

const char* onednn_isa() {
  switch (dnnl_get_effective_cpu_isa()) {
    case dnnl_cpu_isa_sse41: return "SSE4.1";
    case dnnl_cpu_isa_avx: return "AVX";
    case dnnl_cpu_isa_avx2: return "AVX2";
    case dnnl_cpu_isa_avx512_core: return "AVX-512";
    case dnnl_cpu_isa_avx512_core_vnni: return "AVX-512 with VNNI";
    case dnnl_cpu_isa_avx512_core_bf16: return "AVX-512 with bf16";
    case dnnl_cpu_isa_avx512_core_amx: return "AVX-512 with AMX";
    default: return "its own choice of";
  }
}

Finding instructions(const CpuInfo& cpu) {
  const std::string what =
      fmt::format("{}; {}", cpu.isa, cpu.features.empty() ? "no vector features told" : cpu.features);
  if (cpu.isa == "baseline") {
    return {
        State::warning, "instructions", what,
        "without AVX2 every kernel runs its plain version, several times slower; use a processor made after 2013, or "
        "let the virtual machine pass the host's through"};
  }
  return {State::ok, "instructions", what,
          fmt::format("llmz's own kernels run their {} version, oneDNN's matrix products its {} one",
                      ops::instruction_set(), onednn_isa())};
}

Finding threads(const CpuInfo& cpu, int share) {
  const char* asked = environment("OMP_NUM_THREADS");
  const int used = run::use_threads(0, share);
  const std::string what = fmt::format("{} by default, {}", used,
                                       asked != nullptr        ? fmt::format("from OMP_NUM_THREADS={}", asked)
                                       : share < cpu.threads() ? "this rank's share of the usable cores"
                                                               : "one for each usable core");
  if (used > cpu.threads()) {
    return {State::warning, "threads", what,
            fmt::format("more than the {} usable cores: threads wait for each other, often far slower; unset "
                        "OMP_NUM_THREADS or set it to {}",
                        cpu.threads(), cpu.threads())};
  }
  return {State::ok, "threads", what, "train.threads in the configuration, or --threads, sets another number"};
}

Finding memory() {
  const MemoryInfo info = memory_info();
  const auto available = static_cast<double>(info.available);
  const std::string what =
      fmt::format("{:.1f} GB free of {:.1f} GB{}", available / kGiga, static_cast<double>(info.total) / kGiga,
                  info.limited_by_cgroup ? " (a control group's limit)" : "");
  if (available < kLittleMemory) {
    return {State::warning, "memory", what,
            "enough for small models only; `llmz plan CONFIG` tells what a run takes, train.micro_batch and "
            "activations.block.codec=recompute lower it"};
  }
  return {State::ok, "memory", what, "`llmz plan CONFIG` tells what a run takes, to the byte"};
}

Finding disk() {
  std::error_code failed;
  const auto folder = std::filesystem::current_path(failed);
  const auto space = std::filesystem::space(folder, failed);
  if (failed) return {State::warning, "disk", "the current folder cannot be looked at: " + failed.message(), ""};
  const auto available = static_cast<double>(space.available);
  const std::string what = fmt::format("{:.1f} GB free in the current folder", available / kGiga);
  if (::access(folder.c_str(), W_OK) != 0) {
    return {State::warning, "disk", what + ", which cannot be written",
            "go to another folder, or set output.path to one"};
  }
  if (available < kLittleDisk) {
    return {State::warning, "disk", what, "checkpoints take 12 bytes a parameter each; make room or set output.path"};
  }
  return {State::ok, "disk", what, "checkpoints take 12 bytes a parameter each"};
}

/// Operations a token of LLaMA-60M at 256 tokens: 6·58 M parameters and its attention.
constexpr double kLlama60mFlops = 6 * 58.07e6 + 6.3e6;

std::string tokens_note(double speed) {
  return fmt::format("at most about {:.0f} tokens/s in training LLaMA-60M", speed / kLlama60mFlops);
}

Finding matmul_speed() {
  try {
    const double speed = engine::measure_matmul_peak();
    return {State::ok, "matrix products", fmt::format("{:.0f} GFLOP/s in fp32 on 2048 x 2048 x 2048", speed * 1e-9),
            tokens_note(speed) + "; `llmz bench` has more"};
  } catch (const std::exception& error) {
    return {State::broken, "matrix products", error.what(), "oneDNN does not work here: install libdnnl again"};
  }
}

/// Which type precision.compute = auto takes on this processor, and why.
Finding bf16_speed(const CpuInfo& cpu) {
  const bool native = ops::multiplies_bf16(DeviceType::cpu);
  try {
    const double speed = engine::measure_matmul_peak({}, DType::bf16);
    const std::string what = fmt::format("{:.0f} GFLOP/s in bf16", speed * 1e-9);
    if (native) {
      return {State::ok, "bf16 products", what,
              "precision.compute = auto takes bf16 on this CPU, with fp32 master weights; " + tokens_note(speed)};
    }
    const bool barred = cpu.features.find("avx512_bf16") != std::string::npos;
    return {State::ok, "bf16 products", what + ", each operand widened to fp32 first",
            fmt::format("precision.compute = auto takes fp32: {}",
                        barred ? "oneDNN is not let use the processor's bf16 instructions (ONEDNN_MAX_CPU_ISA)"
                               : "the processor has neither AVX-512 bf16 nor AMX")};
  } catch (const std::exception& error) {
    return {State::broken, "bf16 products", error.what(), "set precision.compute to \"fp32\""};
  }
}

Finding memory_speed() {
  constexpr int64_t kElements = int64_t{1} << 24;  // 64 MB each way: far beyond the caches
  const BenchCase copy{"copy", 8.0 * kElements, [](BenchExec& exec) {
                         const Tensor out = zero_tensor(exec, {kElements}), in = zero_tensor(exec, {kElements});
                         return [=](Exec& e) { ops::copy(e, out, in); };
                       }};
  const BenchResult result = run_case(copy, 0.2, {});
  return {State::ok, "memory speed", fmt::format("{:.1f} GB/s copying", result.bytes / result.timing.best / kGiga),
          "bounds norms, activations and the optimizer"};
}

Finding build() {
  const BuildInfo info = build_info();
  Finding finding{State::ok, "llmz", version_line(), "portable: kernels pick AVX2 or AVX-512 when they run"};
  if (info.flags.find("-march=native") != std::string::npos) {
    finding.effect = "built for one processor (LLMZ_NATIVE): runs on the like of it only";
  }
  if (info.build_type == "Debug" || info.flags.find("-fsanitize") != std::string::npos) {
    finding.state = State::warning;
    finding.effect = "not optimised: for finding errors, many times slower; configure with CMAKE_BUILD_TYPE=Release";
  }
  return finding;
}

const BuildComponent* component(const BuildInfo& info, const std::string& name) {
  for (const BuildComponent& c : info.components) {
    if (c.name == name) return &c;
  }
  return nullptr;
}

/// SentencePiece does not tell its version when it runs.
Finding sentencepiece(const BuildInfo& info) {
  const BuildComponent* c = component(info, "SentencePiece");
  const bool told = c != nullptr && c->version != "-" && !c->version.empty();
  return {State::ok, "SentencePiece", told ? c->version + " when built" : "there",
          "tokenizers: trains new ones, reads LLaMA's"};
}

std::vector<Finding> libraries() {
  const dnnl_version_t* dnnl = dnnl_version();
  char pcre2[64] = "there";
  if (pcre2_config(PCRE2_CONFIG_VERSION, nullptr) <= static_cast<int>(sizeof pcre2)) {
    pcre2_config(PCRE2_CONFIG_VERSION, pcre2);
  }
  return {{State::ok, "oneDNN", fmt::format("{}.{}.{}", dnnl->major, dnnl->minor, dnnl->patch), "matrix products"},
          {State::ok, "OpenMP", fmt::format("specification of {}, {} processors seen", _OPENMP, omp_get_num_procs()),
           "threads of all other ops"},
          {State::ok, "Eigen",
           fmt::format("{}.{}.{} when built", EIGEN_WORLD_VERSION, EIGEN_MAJOR_VERSION, EIGEN_MINOR_VERSION),
           "matrix products in double precision, which tests of gradients use"},
          sentencepiece(build_info()),
          {State::ok, "PCRE2", pcre2, "GPT-2's tokenizer"},
          {State::ok, "zlib", zlibVersion(), "texts in .gz, checksums of shards"},
          {State::ok, "zstd", ZSTD_versionString(), "texts in .zst"}};
}

Finding cuda() {
  const CudaInfo info = cuda_info();
  if (info.devices.empty()) return {State::missing, "CUDA", info.built ? "no GPU" : "not in this build", info.reason};
  std::vector<std::string> names;
  for (const CudaDevice& d : info.devices) {
    names.push_back(fmt::format("{} ({:.0f} GB, compute capability {}.{})", d.name,
                                static_cast<double>(d.memory) / kGiga, d.major, d.minor));
  }
  return {State::ok, "CUDA",
          fmt::format("runtime {}, driver up to {}: {}", info.runtime, info.driver, fmt::join(names, ", ")),
          info.emulated ? "a stand-in for tests: its kernels run on the CPU, slowly"
                        : "train.device = \"auto\" takes the first; bf16 products need 8.0 or newer"};
}

/// What the first GPU makes of a bf16 product.
Finding gpu_speed() {
  try {
    const double speed = engine::measure_matmul_peak({DeviceType::cuda, 0}, DType::bf16);
    return {State::ok, "GPU products", fmt::format("{:.0f} TFLOP/s in bf16 on 8192 x 8192 x 8192", speed * 1e-12),
            tokens_note(speed)};
  } catch (const std::exception& error) {
    return {State::broken, "GPU products", error.what(), "training on this GPU will fail likewise"};
  }
}

/// Whose kernels compute attention on a GPU.
Finding attention(const BuildInfo& info) {
  const BuildComponent* c = component(info, "CUDNN");
  const char* asked = environment("LLMZ_ATTENTION");
  const std::string word = asked == nullptr ? "auto" : asked;
  if (c == nullptr || !c->on) {
    return {State::missing, "attention", "llmz's own kernels on a GPU; cuDNN is not in this build",
            c != nullptr ? c->detail : "cuDNN was not looked for by the build"};
  }
  if (word == "own") {
    return {State::ok, "attention", "llmz's own kernels on a GPU",
            fmt::format("LLMZ_ATTENTION=own leaves cuDNN {} unused", c->version)};
  }
  return {State::ok, "attention", fmt::format("cuDNN {} found by the build, on a GPU", c->version),
          "in bf16, where it takes the shape; llmz's own kernels elsewhere, and with LLMZ_ATTENTION=own everywhere"};
}

/// A library that connects several processes, by the name that it gives itself; empty: not in this build.
Finding connector(const BuildInfo& info, const std::string& name, const std::string& library, const char* gives,
                  const char* lost) {
  if (!library.empty()) return {State::ok, name, library, gives};
  const BuildComponent* c = component(info, name);
  return {State::missing, name, c != nullptr ? c->detail : "not looked for by the build", lost};
}

}  // namespace

const char* state_name(State state) {
  switch (state) {
    case State::ok: return "ok";
    case State::missing: return "missing";
    case State::warning: return "warning";
    case State::broken: return "broken";
  }
  return "";
}

std::vector<Finding> examine_machine(int share) {
  const CpuInfo cpu = cpu_info();
  return {processor(cpu),  instructions(cpu), threads(cpu, share), matmul_speed(),
          bf16_speed(cpu), memory(),          memory_speed(),      disk()};
}

std::vector<Finding> examine_software() {
  const BuildInfo info = build_info();
  std::vector<Finding> findings = {build()};
  for (Finding& f : libraries()) findings.push_back(std::move(f));
  findings.push_back(cuda());
  if (!cuda_info().devices.empty() && !cuda_info().emulated) findings.push_back(gpu_speed());
  findings.push_back(attention(info));
  findings.push_back(connector(info, "NCCL", dist::nccl_library(), "several ranks on GPUs: sums their gradients",
                               "several ranks can train on CPUs only"));
  findings.push_back(connector(info, "MPI", dist::mpi_library(),
                               "several ranks: mpirun, of this MPI, starts them; sums gradients between CPUs",
                               "several ranks need GPUs, NCCL and --rendezvous"));
  return findings;
}

}  // namespace llmz::report
