#pragma once

#include <cstdint>

#include "llmz/data/dataset.h"
#include "llmz/dist/world.h"
#include "llmz/engine/engine.h"

namespace llmz::run {

struct Evaluation {
  double loss = 0;        ///< nats a token: the sum over all scored tokens divided by their number
  double perplexity = 0;  ///< e^loss
  /// Of original text; 0 where the shards do not know its size, or only a part was scored. The very first token of the
  /// data has no context and is not scored.
  double bits_per_byte = 0;
  int64_t tokens = 0;  ///< scored
  double seconds = 0;
};

/// Token-weighted loss of `engine`'s model over `dataset`. Windows advance by `stride` tokens (0 = the engine's
/// sequence: side by side); overlapping ones score their new tokens only, with more context each. `max_batches` > 0
/// scores that many micro-batches, evenly spread over the data; 0 scores every token once. Collective where a `world`
/// is given: each rank scores a part of the micro-batches, and all get the result.
Evaluation evaluate(engine::Engine& engine, const data::Dataset& dataset, int64_t stride, int64_t max_batches,
                    dist::World* world = nullptr);

}  // namespace llmz::run
