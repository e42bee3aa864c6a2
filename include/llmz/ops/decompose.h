#pragma once

#include "llmz/core/exec.h"

namespace llmz::ops {

/// Rows of basis [k,n], k ≤ n, become orthonormal: Householder QR of (I − AᵀA)·basisᵀ with R's diagonal made positive,
/// so that Gaussian rows become a Haar-random basis. `against` A [k₁,n], orthonormal rows, may be absent; k + k₁ ≤ n,
/// and the result is orthogonal to A to rounding (A's rows are decomposed along). Rows that depend on earlier ones
/// become some direction orthogonal to them. f32 and f64; computed in f64.
void orthonormalize(Exec& exec, Tensor basis, Tensor against);

/// basis [k,n] = the k leading eigenvectors of the symmetric gram [n,n] as rows, values [k] their eigenvalues,
/// descending. Each vector's largest component is positive. f32 and f64; computed in f64 (Eigen).
void leading_eigenvectors(Exec& exec, Tensor basis, Tensor values, Tensor gram);

}  // namespace llmz::ops
