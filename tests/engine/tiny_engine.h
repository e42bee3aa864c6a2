// The model of a few thousand parameters that tests train, its batches and its steps. It stands with the engine's tests
// because it needs no layer above the engine: tests of whatever stands on one (run, CUDA, ranks) build on it as well.
#pragma once

#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "llmz/core/random.h"
#include "llmz/core/transfer.h"
#include "llmz/engine/engine.h"

namespace llmz::test {

/// Weights so large that activations and gradients are far from rounding.
inline model::ModelConfig tiny_model(const std::string& architecture = "llama") {
  return {.architecture = architecture,
          .vocab_size = 61,
          .hidden = 24,
          .intermediate = 40,
          .layers = 2,
          .heads = 4,
          .context = 32,
          .init_std = 0.2f};
}

/// `count` ids below `vocab_size`: those from number `first` on of one endless text.
inline std::vector<int32_t> random_ids(int64_t count, uint64_t first = 0, int64_t vocab_size = 61) {
  const RandomStream random(5, Purpose::test);
  std::vector<int32_t> ids(static_cast<size_t>(count));
  for (size_t i = 0; i < ids.size(); ++i) {
    ids[i] = static_cast<int32_t>(random.below(4 * (first + i), static_cast<uint64_t>(vocab_size)));
  }
  return ids;
}

struct Batch {
  std::vector<int32_t> tokens, targets;
};

/// Targets have nothing to do with the tokens: what a model learns of them is this batch.
inline Batch random_batch(int64_t count, uint64_t first = 0, int64_t vocab_size = 61) {
  return {random_ids(count, first, vocab_size), random_ids(count, first + 1000, vocab_size)};
}

struct TrainOptions {
  double lr = 1e-2;
  int micro_steps = 1;
  uint64_t first = 0;  ///< where in the text: at the same place for all steps, so that they learn it
};

/// What a step tells: the mean loss in nats before it, and the gradient's norm.
struct StepResult {
  double loss = 0, norm = 0;
  bool operator==(const StepResult&) const = default;
};
inline std::ostream& operator<<(std::ostream& out, const StepResult& r) {
  return out << "loss " << r.loss << ", norm " << r.norm;
}

/// Step `number` of training, from 1.
inline StepResult train_step(engine::Engine& engine, int64_t number, const TrainOptions& options = {}) {
  const engine::EngineOptions& o = engine.options();
  const int64_t tokens = o.micro_batch * o.sequence, all = tokens * options.micro_steps;
  engine.begin_step(number);
  for (int i = 0; i < options.micro_steps; ++i) {
    const Batch batch = random_batch(tokens, options.first + 100 * static_cast<uint64_t>(i), o.model.vocab_size);
    engine.micro_step(batch.tokens, batch.targets, 1.0f / static_cast<float>(all), i + 1 == options.micro_steps);
  }
  const double norm = engine.update(number, options.lr);
  return {engine.loss_sum() / static_cast<double>(all), norm};
}

/// Steps 1 to `steps`; what each tells.
inline std::vector<StepResult> train(engine::Engine& engine, int64_t steps, const TrainOptions& options = {}) {
  std::vector<StepResult> all;
  for (int64_t i = 1; i <= steps; ++i) all.push_back(train_step(engine, i, options));
  return all;
}

/// All weights as numbers, of an fp32 engine on the CPU.
inline std::vector<float> weights_of(engine::Engine& engine) {
  std::vector<float> all;
  for (const Parameter* p : engine.model().parameters()) {
    const float* w = p->weight.as<float>();
    all.insert(all.end(), w, w + p->weight.numel());
  }
  return all;
}

/// All weights bit for bit, of any type and on any device.
inline std::vector<std::byte> weight_bytes(engine::Engine& engine) {
  std::vector<std::byte> all;
  for (const Parameter* p : engine.model().parameters()) {
    HostMirror mirror(&engine.memory(), p->weight);
    mirror.download();
    const auto* bytes = static_cast<const std::byte*>(mirror.tensor().data);
    all.insert(all.end(), bytes, bytes + p->weight.bytes());
  }
  return all;
}

}  // namespace llmz::test
