#include "llmz/report/bench.h"

#include <algorithm>
#include <chrono>

#include "llmz/core/planned.h"
#include "llmz/core/random.h"
#include "llmz/core/transfer.h"
#include "llmz/engine/matmul_peak.h"
#include "llmz/ops/elementwise.h"
#include "llmz/ops/threads.h"

namespace llmz::report {
namespace {

constexpr uint64_t kSeed = 1;
constexpr size_t kFewestRuns = 3, kMostRuns = 1000;

Tensor make(BenchExec& exec, Shape shape, DType dtype) {
  return exec.memory.persistent("bench", Category::workspace, shape, dtype);
}

}  // namespace

double median_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

Timing timing_of(std::vector<double> seconds) {
  const double best = *std::min_element(seconds.begin(), seconds.end());
  return {best, median_of(std::move(seconds))};
}

BenchResult run_case(const BenchCase& bench_case, double seconds, const run::Placement& placement) {
  using Clock = std::chrono::steady_clock;
  const DType type = placement.precision.activation;
  using Run = std::function<void(Exec&)>;
  const auto once = [](Exec& exec, const Run& run) {
    const ProgramScope program(exec.memory, "bench");
    run(exec);
    if (exec.memory.gpu() != nullptr) exec.memory.gpu()->synchronize();
  };
  double flops = 0;
  const Planned<Run> run(
      placement.device,
      [&](Memory& memory) {
        BenchExec exec(memory, type);
        return bench_case.prepare(exec);
      },
      [&](const Run& body, Exec& exec) {
        once(exec, body);
        flops = exec.flops;
      });
  if (Gpu* const gpu = run.memory().gpu(); gpu != nullptr) gpu->set_tf32(placement.tf32);
  once(run.exec(), *run);  // the first run compiles kernels and touches pages
  std::vector<double> taken;
  double total = 0;
  while (taken.size() < kFewestRuns || (total < seconds && taken.size() < kMostRuns)) {
    const auto start = Clock::now();
    once(run.exec(), *run);
    taken.push_back(std::chrono::duration<double>(Clock::now() - start).count());
    total += taken.back();
  }
  const double share = bench_case.own_types ? 1.0 : static_cast<double>(dtype_bytes(type)) / 4;
  return {bench_case.name, timing_of(std::move(taken)), bench_case.bytes * share, flops};
}

Tensor normal_tensor(BenchExec& exec, Shape shape, float stddev) {
  const Tensor t = make(exec, shape, exec.type);
  ops::fill_normal(exec, t, RandomStream(kSeed, Purpose::sampling), 0, stddev);
  return t;
}

Tensor zero_tensor(BenchExec& exec, Shape shape) {
  const Tensor t = make(exec, shape, exec.type);
  ops::fill(exec, t, 0.0f);
  return t;
}

Tensor f32_tensor(BenchExec& exec, Shape shape) {
  const Tensor t = make(exec, shape, DType::f32);
  ops::fill_normal(exec, t, RandomStream(kSeed, Purpose::sampling), 0, 1.0f);
  return t;
}

Tensor byte_tensor(BenchExec& exec, Shape shape) { return make(exec, shape, DType::u8); }

Tensor id_tensor(BenchExec& exec, int64_t count, int64_t bound) {
  const Tensor t = make(exec, {count}, DType::i32);
  if (t.is_meta()) return t;
  const RandomStream random(kSeed, Purpose::sampling);
  std::vector<int32_t> ids(static_cast<size_t>(count));
  for (size_t i = 0; i < ids.size(); ++i) {
    ids[i] = static_cast<int32_t>(random.below(i, static_cast<uint64_t>(bound)));
  }
  copy_to_device<int32_t>(exec.memory, t, ids);
  return t;
}

std::string describe(const run::Placement& placement) {
  const std::string where = placement.device.type == DeviceType::cpu ? fmt::format("{} threads", ops::threads())
                                                                     : device_name(placement.device);
  return fmt::format("{}, {}", where, placement.tf32 ? "tf32" : dtype_name(placement.precision.activation));
}

double matmul_peak(const run::Placement& placement) {
  return engine::measure_matmul_peak(placement.device, placement.precision.activation, placement.tf32);
}

std::string peak_name(const run::Placement& placement) {
  return placement.device.type == DeviceType::cpu ? "2048 x 2048 x 2048" : "8192 x 8192 x 8192";
}

}  // namespace llmz::report
