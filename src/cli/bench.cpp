#include "src/cli/bench.h"

#include <algorithm>
#include <chrono>

#include "llmz/core/random.h"
#include "llmz/ops/elementwise.h"

namespace llmz::cli {
namespace {

constexpr uint64_t kSeed = 1;
constexpr size_t kFewestRuns = 3, kMostRuns = 1000;

Tensor make(Exec& exec, Shape shape, DType dtype) {
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

BenchResult run_case(const BenchCase& bench_case, double seconds) {
  using Clock = std::chrono::steady_clock;
  Memory recorder;
  Exec dry(recorder);
  const auto once = [](Exec& exec, const std::function<void(Exec&)>& run) {
    const ProgramScope program(exec.memory, "bench");
    run(exec);
  };
  once(dry, bench_case.prepare(dry));

  Memory memory(recorder.finish());
  Exec exec(memory);
  const std::function<void(Exec&)> run = bench_case.prepare(exec);
  once(exec, run);  // the first run compiles kernels and touches pages
  std::vector<double> taken;
  double total = 0;
  while (taken.size() < kFewestRuns || (total < seconds && taken.size() < kMostRuns)) {
    const auto start = Clock::now();
    once(exec, run);
    taken.push_back(std::chrono::duration<double>(Clock::now() - start).count());
    total += taken.back();
  }
  return {bench_case.name, timing_of(std::move(taken)), bench_case.bytes, dry.flops};
}

Tensor normal_tensor(Exec& exec, Shape shape, float stddev) {
  const Tensor t = make(exec, shape, DType::f32);
  ops::fill_normal(exec, t, RandomStream(kSeed, Purpose::sampling), 0, stddev);
  return t;
}

Tensor zero_tensor(Exec& exec, Shape shape) {
  const Tensor t = make(exec, shape, DType::f32);
  ops::fill(exec, t, 0.0f);
  return t;
}

Tensor id_tensor(Exec& exec, int64_t count, int64_t bound) {
  const Tensor t = make(exec, {count}, DType::i32);
  if (t.is_meta()) return t;
  const RandomStream random(kSeed, Purpose::sampling);
  for (int64_t i = 0; i < count; ++i) {
    t.as<int32_t>()[i] = static_cast<int32_t>(random.below(static_cast<uint64_t>(i), static_cast<uint64_t>(bound)));
  }
  return t;
}

}  // namespace llmz::cli
