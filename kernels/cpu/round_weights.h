#pragma once

#include <type_traits>

#include "kernels/cpu/random_bits.h"
#include "llmz/ops/optimizer.h"

namespace llmz::cpu {

/// What becomes of a row's new weights beside being stored: a bf16 copy, or random numbers that make them bf16; or
/// null.
struct WeightOutput {
  bf16* shadow = nullptr;
  const uint32_t* random = nullptr;
};

/// weight[i] = next(i), in the order and with the rounding that `out` asks for. next(i) may read weight[i].
template <class W, class Next>
LLMZ_INLINE void store_weights(W* weight, const WeightOutput& out, int64_t n, const Next& next) {
  if constexpr (std::is_same_v<W, bf16>) {
    const uint32_t* const random = out.random;
    if (random != nullptr) {
      LLMZ_IVDEP
      for (int64_t i = 0; i < n; ++i) store_at_random(weight + i, next(i), random[i]);
      return;
    }
  }
  if constexpr (std::is_same_v<W, float>) {
    bf16* const shadow = out.shadow;
    if (shadow != nullptr) {
      LLMZ_IVDEP
      for (int64_t i = 0; i < n; ++i) {
        const float x = next(i);
        weight[i] = x;
        store(shadow + i, x);
      }
      return;
    }
  }
  LLMZ_IVDEP
  for (int64_t i = 0; i < n; ++i) store(weight + i, next(i));
}

/// One thread's WeightOutput for a chunk at a time.
class WeightRounder {
 public:
  explicit WeightRounder(const ops::WeightRounding& rounding) : rounding_(rounding) {}

  /// Of elements first … first + count − 1, counted row-major; good until the next call.
  WeightOutput output(int64_t first, int64_t count) {
    WeightOutput out;
    if (rounding_.shadow.present()) out.shadow = rounding_.shadow.as<bf16>() + first;
    if (rounding_.stochastic) {
      out.random = random_bits(buffer_, *rounding_.stochastic, rounding_.first + static_cast<uint64_t>(first), count);
    }
    return out;
  }

 private:
  const ops::WeightRounding& rounding_;
  alignas(64) uint32_t buffer_[kRandomWords];
};

}  // namespace llmz::cpu
