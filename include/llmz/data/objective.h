#pragma once

#include <cstdint>
#include <span>

namespace llmz::data {

/// What a model learns from text: turns a run of tokens into a sequence's inputs and targets. It stands here, below the
/// loader that calls it; a model sees the finished batch alone (model/batch.h).
class Objective {
 public:
  virtual ~Objective() = default;

  /// Tokens of text that a sequence of `length` inputs is made from; at least `length`.
  virtual int64_t reads(int64_t length) const = 0;
  /// tokens, targets [length] from text [reads(length)]; a target of −1 is none. `sample`, its number in the run, and
  /// `seed` are all that random choices may hang on.
  virtual void make(std::span<const int32_t> text, uint64_t seed, int64_t sample, std::span<int32_t> tokens,
                    std::span<int32_t> targets) const = 0;
};

/// Each token's target is the token after it: reads one token more than it gives.
const Objective& next_token();

}  // namespace llmz::data
