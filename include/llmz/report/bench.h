#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "llmz/core/exec.h"
#include "llmz/run/placement.h"

namespace llmz::report {

/// Seconds of one run of something that was run several times.
struct Timing {
  double best = 0, median = 0;
};

Timing timing_of(std::vector<double> seconds);
double median_of(std::vector<double> values);

/// Where a case runs, and the type of its weights and activations.
struct BenchExec : Exec {
  DType type;
  BenchExec(Memory& m, DType t) : Exec(m), type(t) {}
};

/// One thing to be timed. `prepare` makes its tensors, persistent in the memory of the Exec it is given, and returns
/// what is to be run. It is called twice: once on nothing, to learn what memory that takes.
struct BenchCase {
  std::string name;
  double bytes = 0;  ///< moved in one run were all f32, each tensor counted once for reading and once for writing
  std::function<std::function<void(Exec&)>(BenchExec&)> prepare;
  bool own_types = false;  ///< the case does not look at BenchExec's type: `bytes` are what it moves
};

struct BenchResult {
  std::string name;
  Timing timing;
  double bytes = 0;  ///< with the elements' own sizes
  double flops = 0;  ///< of one run, as the ops count them
};

/// Runs `bench_case` once untimed, then for about `seconds`, at least three times.
BenchResult run_case(const BenchCase& bench_case, double seconds, const run::Placement& placement);

/// Tensors for cases, of the case's type: normal numbers, zeros; f32 ones such as moments; ids below a bound.
Tensor normal_tensor(BenchExec& exec, Shape shape, float stddev = 1.0f);
Tensor zero_tensor(BenchExec& exec, Shape shape);
Tensor f32_tensor(BenchExec& exec, Shape shape);
Tensor byte_tensor(BenchExec& exec, Shape shape);
Tensor id_tensor(BenchExec& exec, int64_t count, int64_t bound);

/// "cuda:0, bf16" or "2 threads, f32".
std::string describe(const run::Placement& placement);
/// The yardstick there, and what it is: "8192 x 8192 x 8192".
double matmul_peak(const run::Placement& placement);
std::string peak_name(const run::Placement& placement);

}  // namespace llmz::report
