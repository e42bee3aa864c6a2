#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "llmz/core/planned.h"
#include "llmz/model/model.h"
#include "llmz/run/checkpoint.h"
#include "llmz/run/placement.h"

namespace llmz::run {

struct SamplingOptions {
  double temperature = 0.8;  ///< 0 = always the likeliest token
  int64_t top_k = 0;         ///< only the k likeliest; 0 = all
  double top_p = 0.95;       ///< only the likeliest whose probabilities add up to this; 1 = all
  uint64_t seed = 1;
};

/// One token drawn from softmax(logits / temperature), cut to top_k and then to top_p, at `uniform` in (0, 1].
int32_t sample_token(std::span<const float> logits, const SamplingOptions& options, double uniform);

/// A model with a key/value cache: the prompt in one pass, then one token at a time.
class Generator {
 public:
  /// Plans and allocates for `prompt_tokens` plus `new_tokens`. Throws Error when they exceed model.context.
  Generator(const CheckpointHeader& checkpoint, int64_t prompt_tokens, int64_t new_tokens,
            const Placement& placement = {});
  ~Generator();

  /// Draws new tokens until their number is reached, `stop` is drawn (−1 = never) or `on_token` returns false. Token i
  /// depends on (prompt, options, i) alone.
  void run(std::span<const int32_t> prompt, const SamplingOptions& options, int32_t stop,
           const std::function<bool(int32_t)>& on_token);
  const MemoryPlan& memory_plan() const;

 private:
  struct Body;
  int64_t prompt_tokens_, new_tokens_;
  std::unique_ptr<Planned<Body>> body_;
};

}  // namespace llmz::run
