#include "llmz/run/evaluate.h"

#include <chrono>
#include <cmath>
#include <numbers>

#include "llmz/data/eval_windows.h"

namespace llmz::run {

Evaluation evaluate(engine::Engine& engine, const data::Dataset& dataset, int64_t stride, int64_t max_batches,
                    dist::World* world) {
  const auto start = std::chrono::steady_clock::now();
  const int64_t batch = engine.options().micro_batch, sequence = engine.options().sequence;
  const data::EvalWindows windows(dataset, sequence, batch, stride);
  const bool all = max_batches == 0 || max_batches >= windows.batches();
  const int64_t batches = all ? windows.batches() : max_batches;

  std::vector<int32_t> tokens(static_cast<size_t>(batch * sequence)), targets(tokens.size());
  Evaluation result;
  double sum = 0;
  const int64_t first = world != nullptr ? world->rank() : 0, apart = world != nullptr ? world->size() : 1;
  for (int64_t i = first; i < batches; i += apart) {
    const int64_t index = all ? i : i * windows.batches() / batches;
    result.tokens += windows.batch(index, tokens, targets);
    for (float loss : engine.evaluate(tokens, targets)) sum += static_cast<double>(loss);
  }
  if (world != nullptr) {
    sum = world->sum(sum);
    result.tokens = static_cast<int64_t>(world->sum(static_cast<double>(result.tokens)));
  }
  result.loss = sum / static_cast<double>(result.tokens);
  result.perplexity = std::exp(result.loss);
  if (all && dataset.text_bytes() > 0) {
    result.bits_per_byte = sum / std::numbers::ln2 / static_cast<double>(dataset.text_bytes());
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

}  // namespace llmz::run
