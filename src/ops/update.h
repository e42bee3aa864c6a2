#pragma once

// What the ops of all updates do alike: check their common arguments, and go through the gradient by tiles of rows.

#include "llmz/ops/matmul.h"
#include "llmz/ops/update.h"
#include "src/ops/low_rank.h"

namespace llmz::ops {

inline void check_rounding(Arguments& args, const Tensor& weight, const WeightRounding& rounding) {
  if (rounding.shadow.present()) {
    args.dtype("shadow", rounding.shadow, DType::bf16);
    args.shape("shadow", rounding.shadow, weight.shape);
    args.contiguous("shadow", rounding.shadow);
    args.require(weight.dtype == DType::f32, "a weight with a shadow is f32, not {}", dtype_name(weight.dtype));
  }
  args.require(!rounding.stochastic || weight.dtype == DType::bf16, "only a bf16 weight is rounded stochastically");
}

/// Checks an update's common arguments. An op may want more of them: a matrix, a gradient of one kind.
inline void check_update(Arguments& args, const UpdateArgs& a) {
  args.floats("weight", a.weight);
  args.contiguous("weight", a.weight);
  args.require(a.grad.present() != a.low.present(), "one of grad and low must be present");
  if (a.low.present()) {
    args.require(a.weight.rank() == 2, "a low-rank gradient is one of a matrix, not of {}", a.weight.shape.str());
    check_low_rank(args.op(), a.low, a.weight.dim(0), a.weight.dim(1));
  } else {
    args.floats("grad", a.grad, a.weight.shape);
    args.contiguous("grad", a.grad);
  }
  if (a.grad_scale.present()) {
    args.dtype("grad_scale", a.grad_scale, DType::f32);
    args.shape("grad_scale", a.grad_scale, {1});
  }
  args.require(a.step >= 1, "step is {}, steps count from 1", a.step);
  check_rounding(args, a.weight, a.rounding);
}

inline void check_constants(const Arguments& args, const AdamConstants& a) {
  args.require(a.beta1 >= 0 && a.beta1 < 1 && a.beta2 >= 0 && a.beta2 < 1, "betas {} and {} must lie in [0, 1)",
               a.beta1, a.beta2);
}

/// The update of rows first … first + rows(tile) − 1 of a matrix whose gradient there is `tile`. States stay the whole
/// matrix's: the caller takes their rows.
template <class Args>
Args update_of_tile(const Args& whole, int64_t first, const Tensor& tile) {
  Args part = whole;
  part.weight = whole.weight.slice(0, first, tile.dim(0));
  part.grad = tile;
  part.low = {};
  if (whole.rounding.shadow.present()) part.rounding.shadow = whole.rounding.shadow.slice(0, first, tile.dim(0));
  part.rounding.first += static_cast<uint64_t>(first * whole.weight.dim(1));
  return part;
}

/// Whether the CPU multiplies out what came from a low-rank gradient in bf16, with f32 sums: for weights that compute
/// in bf16, as the gradient's factor was made of bf16 products. GPUs choose by kernel.
inline bool expands_in_bf16(const Exec& exec, const UpdateArgs& a) {
  const bool half = a.weight.dtype == DType::bf16 || a.rounding.shadow.present();
  return half && !exec.on_gpu() && multiplies_bf16(exec.memory.target());
}

inline ExpandedTiles expanded_tiles(Exec& exec, const UpdateArgs& a) { return {exec, a.low, expands_in_bf16(exec, a)}; }

/// A dense gradient as one tile, a low-rank one tile by tile: f(first row, rows of the gradient).
template <class F>
void for_gradient_tiles(Exec& exec, const UpdateArgs& a, F&& f) {
  if (!a.low.present()) return f(int64_t{0}, a.grad);
  expanded_tiles(exec, a).for_each(f);
}

}  // namespace llmz::ops
