#pragma once

#include "llmz/core/tensor.h"

namespace llmz::cpu {

/// work f64 [2k + k₁, n].
void orthonormalize(Tensor basis, Tensor against, Tensor work);
/// work f64 [n,n].
void leading_eigenvectors(Tensor basis, Tensor values, Tensor gram, Tensor work);

}  // namespace llmz::cpu
