#pragma once

#include "kernels/cuda/workspace.h"
#include "llmz/core/gpu.h"

namespace llmz::cuda {

/// The product of ops::matmul by one call of cuBLASLt, for what that takes: A and B both f32 and C f32, or A and B both
/// bf16 and C bf16 or f32; no size is 0; a bias only if `blas_takes_bias`. Sums are f32, from factors rounded to TF32
/// where the Gpu allows that. workspace: kBlasWorkspaceBytes, 256-byte aligned. The same shapes, pitches and alignments
/// on the same kind of GPU give the same bits: the algorithm is chosen from those alone, once, and none of cuBLASLt's
/// adds up in an order that depends on timing as long as one stream has the workspace. Throws Error where cuBLASLt
/// refuses.
void blas_matmul(Gpu& gpu, const MatmulArgs& args, void* workspace);

/// cuBLASLt's epilogue adds a bias of C's type, to a result that is not added to anything.
inline bool blas_takes_bias(const MatmulArgs& args) {
  return args.bias.present() && args.bias.dtype == args.c.dtype && !args.accumulate;
}

}  // namespace llmz::cuda
