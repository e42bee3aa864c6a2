#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "llmz/core/exec.h"
#include "src/cli/commands.h"

namespace llmz::cli {

/// Seconds of one run of something that was run several times.
struct Timing {
  double best = 0, median = 0;
};

Timing timing_of(std::vector<double> seconds);
double median_of(std::vector<double> values);

/// One thing to be timed. `prepare` makes its tensors, persistent in the memory of the Exec it is given, and returns
/// what is to be run. It is called twice: once on nothing, to learn what memory that takes.
struct BenchCase {
  std::string name;
  double bytes = 0;  ///< moved in one run, each tensor counted once for reading and once for writing
  std::function<std::function<void(Exec&)>(Exec&)> prepare;
};

struct BenchResult {
  std::string name;
  Timing timing;
  double bytes = 0;
  double flops = 0;  ///< of one run, as the ops count them
};

/// Runs `bench_case` once untimed, then for about `seconds`, at least three times.
BenchResult run_case(const BenchCase& bench_case, double seconds);

/// Tensors for cases: normal numbers, and ids below a bound.
Tensor normal_tensor(Exec& exec, Shape shape, float stddev = 1.0f);
Tensor zero_tensor(Exec& exec, Shape shape);
Tensor id_tensor(Exec& exec, int64_t count, int64_t bound);

/// Subcommands of `bench`.
Command add_bench_matmul(CLI::App& bench);
Command add_bench_ops(CLI::App& bench);
Command add_bench_step(CLI::App& bench);
Command add_bench_presets(CLI::App& bench);

}  // namespace llmz::cli
