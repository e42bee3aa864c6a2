#pragma once

#include "llmz/ops/update.h"

namespace llmz::ops {

/// AdamW (Loshchilov & Hutter 2019), PyTorch's order of operations:
///   g = grad·grad_scale;  w −= lr·weight_decay·w;  m = β₁m + (1−β₁)g;  v = β₂v + (1−β₂)g²;
///   w −= lr · (m/(1−β₁^step)) / (√(v/(1−β₂^step)) + eps).
/// m, v of the weight's shape, contiguous; each f32 or bf16 (all f64 for f64).
struct AdamWArgs : UpdateArgs, AdamConstants {
  Tensor m = {}, v = {};
};
void adamw(Exec& exec, const AdamWArgs& args);

/// Adam in the projector's subspace (CompAct, arXiv 2410.15352, Algorithm 2):
///   g = Ĝ·grad_scale;  m = β₁m + (1−β₁)g;  v = β₂v + (1−β₂)g²;  N = (m/(1−β₁^step)) / (√(v/(1−β₂^step)) + eps);
///   w −= lr·weight_decay·w;  w −= lr·alpha·N·Pᵀ, straight into the weight
/// No update of full size, and no P where a seed makes it, outlives this op. weight [m,n]; low.factor, m, v [m,r],
/// contiguous; low has no scale and no extra term; `step` counts those of the moments.
struct ProjectedAdamArgs : UpdateArgs, AdamConstants {
  Tensor m = {}, v = {};
  float alpha = 0.25f;
};
void projected_adam(Exec& exec, const ProjectedAdamArgs& args);

/// AdamW with a factored second moment (Adafactor, Shazeer & Stern 2018) and a first moment of 8 bits:
///   g = grad·grad_scale;  row = β₂row + (1−β₂)·mean_j g²;  column = β₂column + (1−β₂)·mean_i g²;
///   m = β₁m + (1−β₁)g;  v_ij = row_i·column_j / mean(row);  then the update of adamw with bias correction.
/// weight [m,n]; grad [m,n] or `low`; row [m], column [n] f32 (f64 for f64). The first moment is `m` [m,n], f32 or f64,
/// or m_codes u8 [m,n] with m_scales f32 [m, ceil(n/256)]: block-wise dynamic quantisation (Dettmers et al. 2022,
/// signed dynamic tree of 8 bits, blocks of 256 elements of a row, nearest). The update uses m before it is rounded.
///
/// With `total_rows` the weight is spread by rows over exec.ranks (null: there are no others): weight, grad or low, m
/// and row are this rank's rows, `column` is of the whole and the same on every rank, total_rows counts the whole's
/// rows. Means over rows are then made of all ranks' in one all-reduce of column and mean(row); all must call. Ranks
/// may have more rows together than the whole, as long as the gradient of those is zero; zero weights there stay zero.
struct FactoredAdamWArgs : UpdateArgs, AdamConstants {
  Tensor m = {}, m_codes = {}, m_scales = {}, row = {}, column = {};
  int64_t total_rows = 0;  ///< 0: the weight's

  int64_t mean_rows() const { return total_rows > 0 ? total_rows : weight.dim(0); }
};
constexpr int64_t kMomentBlock = 256;  ///< elements a scale of m_codes
void factored_adamw(Exec& exec, const FactoredAdamWArgs& args);

/// total[0] += Σ x². `total` is one f32 (f64 when x is f64). Summed in fixed-size pieces, so the result does not
/// depend on the number of threads. NaN and infinity go through.
void sum_of_squares(Exec& exec, Tensor total, Tensor x);

/// norm[0] = √total[0];  scale[0] = min(1, max_norm/(norm + 1e-6)), or 1 when max_norm is 0 (PyTorch's
/// clip_grad_norm_). Scalars f32 (total may be f64).
void clip_coefficient(Exec& exec, Tensor norm, Tensor scale, Tensor total, float max_norm);

}  // namespace llmz::ops
