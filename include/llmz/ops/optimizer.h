#pragma once

#include "llmz/core/exec.h"

namespace llmz::ops {

/// AdamW (Loshchilov & Hutter 2019), PyTorch's order of operations:
///   g = grad·grad_scale;  w −= lr·weight_decay·w;  m = β₁m + (1−β₁)g;  v = β₂v + (1−β₂)g²;
///   w −= lr · (m/(1−β₁^step)) / (√(v/(1−β₂^step)) + eps).
/// weight, grad, m, v of one shape, contiguous; each f32 or bf16 (all f64 for f64). `step` counts from 1.
/// `grad_scale` is a one-element f32 tensor on the device (the clipping coefficient), or absent for 1.
struct AdamWArgs {
  Tensor weight = {}, grad = {}, m = {}, v = {}, grad_scale = {};
  float lr = 0, beta1 = 0.9f, beta2 = 0.999f, eps = 1e-8f, weight_decay = 0;
  int64_t step = 1;
};
void adamw(Exec& exec, const AdamWArgs& args);

/// total[0] += Σ x². `total` is one f32 (f64 when x is f64). Summed in fixed-size pieces, so the result does not
/// depend on the number of threads. NaN and infinity go through.
void sum_of_squares(Exec& exec, Tensor total, Tensor x);

/// norm[0] = √total[0];  scale[0] = min(1, max_norm/(norm + 1e-6)), or 1 when max_norm is 0 (PyTorch's
/// clip_grad_norm_). Scalars f32 (total may be f64).
void clip_coefficient(Exec& exec, Tensor norm, Tensor scale, Tensor total, float max_norm);

}  // namespace llmz::ops
