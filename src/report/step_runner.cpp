#include "llmz/report/step_runner.h"

#include <span>

#include "llmz/core/random.h"

namespace llmz::report {

StepRunner::StepRunner(engine::Engine& engine, const run::RunConfig& config)
    : engine_(engine), lr_(config.optimizer.lr) {
  const auto count = static_cast<size_t>(config.train.micro_batch * config.train.sequence);
  const RandomStream random(config.train.seed, Purpose::sampling);
  for (size_t i = 0; i <= count; ++i) {
    ids_.push_back(static_cast<int32_t>(random.below(i, static_cast<uint64_t>(config.model.vocab_size))));
  }
}

void StepRunner::run(StepTimes& times) {
  const std::span<const int32_t> ids(ids_);
  const size_t count = ids.size() - 1;
  const auto start = now();
  engine_.begin_step(step_ + 1);
  const auto begun = now();
  engine_.micro_step(ids.first(count), ids.last(count), 1.0f / static_cast<float>(count));
  const auto summed = now();
  engine_.update(++step_, lr_);
  const auto end = now();
  const auto seconds = [](auto from, auto to) { return std::chrono::duration<double>(to - from).count(); };
  times.begin.push_back(seconds(start, begun));
  times.micro.push_back(seconds(begun, summed));
  times.update.push_back(seconds(summed, end));
  times.whole.push_back(seconds(start, end));
}

/// The time when what was asked for so far is done.
std::chrono::steady_clock::time_point StepRunner::now() {
  if (engine_.memory().gpu() != nullptr) engine_.memory().gpu()->synchronize();
  return std::chrono::steady_clock::now();
}

}  // namespace llmz::report
