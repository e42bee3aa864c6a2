#pragma once

// What sketches need beside matrix products.

#include "llmz/core/projector.h"
#include "llmz/core/tensor.h"

namespace llmz::cpu {

/// The tables of a sign projector, from its seed: index i32 [2,n]: the feature at each position, the group of each
/// feature; signs f32 or f64 [2,n], likewise.
void sign_tables(Tensor index, Tensor signs, const Projector& p);
/// z [T,r] = x·R.
void sign_project(Tensor z, Tensor x, Tensor index, Tensor signs);
/// out [T,n] = alpha·z·Rᵀ (+ out).
void sign_expand(Tensor out, Tensor z, Tensor index, Tensor signs, double alpha, bool accumulate);
/// weights [r] = Σ scale² over each group (scale absent: the group's size).
void sign_weights(Tensor weights, Tensor scale, Tensor index);

/// R [n,r₂] of a Gaussian projector, N(0, 1/r₂): RandomStream's numbers, for f32 to about 2e-6 (vectorised logarithm
/// and sine), for f64 its very numbers.
void gaussian_matrix(Tensor r, const Projector& p);

}  // namespace llmz::cpu
