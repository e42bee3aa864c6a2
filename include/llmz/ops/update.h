#pragma once

#include <optional>

#include "llmz/core/exec.h"
#include "llmz/core/projector.h"
#include "llmz/core/random.h"

namespace llmz::ops {

/// How an update smaller than the spacing of bf16 numbers is not lost. Either the weight that an op updates is an f32
/// master copy, and `shadow` (bf16, same shape) becomes its rounding, which is what the model computes with; or the
/// weight itself is bf16 and is rounded up or down at random, up with the probability of the fraction: element i,
/// counted row-major, adds the upper 16 bits of number first + i of `stochastic` to its fp32 bits and drops the lower
/// 16. Neither: to nearest.
struct WeightRounding {
  Tensor shadow = {};
  std::optional<RandomStream> stochastic = {};
  uint64_t first = 0;
};

/// What every update of a weight takes, whatever its rule. The arguments of an update's op derive from it and add its
/// states; `check_update` (src/ops/update.h) checks what is here.
struct UpdateArgs {
  Tensor weight = {};      ///< contiguous, f32, bf16 or f64
  Tensor grad = {};        ///< of the weight's shape, contiguous; or absent, with
  LowRankGrad low = {};    ///< instead of it: expanded in the op, a tile of rows at a time
  Tensor grad_scale = {};  ///< one f32 on the device, the clipping coefficient: the gradient counts as grad·grad_scale;
                           ///< absent for 1
  float lr = 0;
  float weight_decay = 0;  ///< decoupled: w −= lr·weight_decay·w, before the update
  int64_t step = 1;        ///< counts from 1
  WeightRounding rounding = {};
};

/// β₁, β₂ and ε of Adam and its kin.
struct AdamConstants {
  float beta1 = 0.9f, beta2 = 0.999f, eps = 1e-8f;
};

}  // namespace llmz::ops
