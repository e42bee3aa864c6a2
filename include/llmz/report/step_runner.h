#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "llmz/engine/engine.h"
#include "llmz/run/config.h"

namespace llmz::report {

/// Seconds of steps and of their parts, one entry a step.
struct StepTimes {
  std::vector<double> begin, micro, update, whole;
};

/// Optimizer steps of one micro-batch of made-up tokens. The engine is initialised and outlives it.
class StepRunner {
 public:
  StepRunner(engine::Engine& engine, const run::RunConfig& config);

  /// One step; adds its seconds to `times`.
  void run(StepTimes& times);

 private:
  std::chrono::steady_clock::time_point now();

  engine::Engine& engine_;
  double lr_;
  std::vector<int32_t> ids_;
  int64_t step_ = 0;
};

}  // namespace llmz::report
