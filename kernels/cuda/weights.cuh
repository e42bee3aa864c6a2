#pragma once

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/random.cuh"
#include "llmz/ops/optimizer.h"

namespace llmz::cuda {

/// x up or down to bf16 at random: the 16 random bits are added below those that stay. Infinities and NaN stay.
__device__ inline float to_bf16_stochastically(float x, uint32_t random) {
  const uint32_t u = __float_as_uint(x);
  if ((u & 0x7f800000u) == 0x7f800000u) return x;
  return __uint_as_float((u + (random >> 16)) & 0xffff0000u);
}

/// Where an optimizer's new weights go (ops::WeightRounding): the weight, and its bf16 shadow where it has one.
struct WeightStore {
  Operand weight, shadow;
  bool stochastic = false;
  DeviceStream stream;
  uint64_t first = 0;

  /// Elements i … i + N − 1, counted row-major; for N = 2 and 4 aligned to N, `first` too.
  template <int N>
  __device__ void store(int64_t i, Pack<N> x) const {
    if (stochastic) {
      if constexpr (N == 4) {
        const uint4 b = stream.block((first + static_cast<uint64_t>(i)) / 4);
        x[0] = to_bf16_stochastically(x[0], b.x), x[1] = to_bf16_stochastically(x[1], b.y);
        x[2] = to_bf16_stochastically(x[2], b.z), x[3] = to_bf16_stochastically(x[3], b.w);
      } else if constexpr (N == 2) {
        const uint64_t at = first + static_cast<uint64_t>(i);
        const uint4 b = stream.block(at / 4);
        const bool upper = at % 4 != 0;
        x[0] = to_bf16_stochastically(x[0], upper ? b.z : b.x), x[1] = to_bf16_stochastically(x[1], upper ? b.w : b.y);
      } else {
#pragma unroll
        for (int k = 0; k < N; ++k) {
          x[k] = to_bf16_stochastically(x[k], stream.bits(first + static_cast<uint64_t>(i + k)));
        }
      }
    }
    weight.store<N>(i, 0, x);
    if (shadow.present()) shadow.store<N>(i, 0, x);
  }
};

/// Of a contiguous weight.
inline WeightStore weight_store(const Tensor& weight, const ops::WeightRounding& rounding) {
  WeightStore store;
  store.weight = operand(weight);
  store.shadow = operand(rounding.shadow);
  store.stochastic = rounding.stochastic.has_value();
  if (rounding.stochastic) store.stream = device_stream(*rounding.stochastic);
  store.first = rounding.first;
  return store;
}
inline bool store_by_fours(const Tensor& weight, const ops::WeightRounding& rounding) {
  return walk_by_fours(weight) && (!rounding.shadow.present() || walk_by_fours(rounding.shadow)) &&
         rounding.first % 4 == 0;
}

}  // namespace llmz::cuda
