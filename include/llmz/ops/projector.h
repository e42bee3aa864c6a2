#pragma once

#include "llmz/core/exec.h"
#include "llmz/core/projector.h"

namespace llmz::ops {

/// z [T,r] = x·P, x [T,n] with strided rows. Columns of z: the principal part's r₁, then the random part's r₂ (of
/// x − x·Q₁Q₁ᵀ). Overwrites z. f32, bf16 or f64 (all alike). Adds the products' arithmetic to exec.flops (a `sign` part
/// counts as 2·T·n).
void project(Exec& exec, Tensor z, Tensor x, const Projector& p);

/// out [T,n] = alpha·z·Pᵀ (+ out when `accumulate`), z [T,r]: what a sketch decodes to, and the projected update
/// W += alpha·N·Pᵀ, of which no full-size copy is made. Rows of out may be strided.
struct ExpandArgs {
  Tensor out = {}, z = {};
  double alpha = 1.0;
  bool accumulate = false;
};
void expand(Exec& exec, const ExpandArgs& args, const Projector& p);

/// total[0] += ‖G̃‖²_F of the expanded gradient, from Ĝ and PᵀD²P without expanding (D = diag(column_scale)).
/// `total` as in sum_of_squares (f32, or f64 for f64 gradients).
void expanded_sum_of_squares(Exec& exec, Tensor total, const LowRankGrad& grad);

/// out [rows,n] = rows [first_row, first_row + rows) of G̃. For tests and diagnostics; optimizers expand inside their
/// ops.
void expand_gradient(Exec& exec, Tensor out, const LowRankGrad& grad, int64_t first_row);

}  // namespace llmz::ops
