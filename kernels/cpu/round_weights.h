#pragma once

#include "kernels/cpu/random_bits.h"
#include "llmz/ops/optimizer.h"

namespace llmz::cpu {

/// New values of weight elements first … first + count − 1, before they are stored: made bf16 at random where that is
/// asked for. Else the store rounds them.
inline void round_weights(float* x, const ops::WeightRounding& rounding, int64_t first, int64_t count) {
  if (!rounding.stochastic) return;
  round_to_bf16_stochastically(x, *rounding.stochastic, rounding.first + static_cast<uint64_t>(first), count);
}
inline void round_weights(double*, const ops::WeightRounding&, int64_t, int64_t) {}

}  // namespace llmz::cpu
