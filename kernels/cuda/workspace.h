#pragma once

// How much workspace the CUDA twins take, by shape alone: known in every build, so that a GPU run can be planned where
// there is no GPU.

#include "llmz/core/tensor.h"
#include "llmz/ops/attention_mask.h"
#include "llmz/ops/matmul.h"
#include "llmz/ops/optimizer.h"
#include "llmz/ops/quant.h"

namespace llmz::cuda {

using ops::AdamWArgs;
using ops::FactoredAdamWArgs;
using ops::MatmulArgs;
using ops::ProjectedAdamArgs;
using ops::QuantFormat;

/// A buffer of this shape and type; without dimensions for none.
struct WorkspaceShape {
  Shape shape = {};
  DType dtype = DType::f32;
};

/// Bytes: cuBLASLt's own part (kBlasWorkspaceBytes), then copies: f32 ones of C, A, B as far as they are bf16 and
/// `matmul_takes_copies`; else bf16 ones of the factors that `matmul_aligns`.
WorkspaceShape matmul_workspace(const MatmulArgs& args);
/// A product with an f32 factor is computed in f32 throughout: cuBLASLt mixes no factors, and has no bf16 result of f32
/// factors.
inline bool matmul_takes_copies(const MatmulArgs& args) {
  return args.a.dtype == DType::f32 || args.b.dtype == DType::f32;
}
/// A bf16 factor whose rows do not begin at 16 bytes (a weight of 5461 columns) is copied to where they do: the tensor
/// cores take no other, and the copy costs a few percent of the product. Activations are padded where they are made.
inline bool matmul_aligns(const Tensor& t) { return t.dtype == DType::bf16 && t.dim(0) > 1 && t.stride(0) % 8 != 0; }
/// Elements from row to row of a copy: rows begin at 16 bytes.
int64_t matmul_copy_pitch(const Tensor& t);
int64_t matmul_copy_bytes(const Tensor& t, DType type);
WorkspaceShape bias_backward_workspace(const Tensor& dy);
/// `outputs`: 1 (dgain) or 2 (dgain, dbias).
WorkspaceShape norm_backward_workspace(const Tensor& dx, int outputs);
/// Attention is planned with room for cuDNN (attention_cudnn.h) in every build: its own demand is known only where
/// there is a GPU, and what it demands beyond this makes llmz's own kernels run. They run for all but causal masks.
WorkspaceShape attention_forward_workspace(const Tensor& q, const ops::AttentionMask& mask);
/// `with_out`: the forward's output is there.
WorkspaceShape attention_backward_workspace(const Tensor& q, const Tensor& k, const ops::AttentionMask& mask,
                                            bool with_out);
/// Sequences that cuDNN's backward gets at a time: a divisor of the batch.
int64_t attention_backward_piece(const Tensor& q, const Tensor& k);
WorkspaceShape embedding_backward_workspace(const Tensor& tokens, const Tensor& dtable);
WorkspaceShape difference_norms_workspace(const Tensor& a);
WorkspaceShape sum_of_squares_workspace(const Tensor& x);
WorkspaceShape add_sum_workspace(const Tensor& x);
WorkspaceShape factored_sums_workspace(const Tensor& weight);
WorkspaceShape orthonormalize_workspace(const Tensor& basis, const Tensor& against);
WorkspaceShape eigenvectors_workspace(const Tensor& gram);

/// Whether projected_adam runs as one kernel that makes its projector on the fly: a Gaussian projector, and a weight
/// that is bf16 or has a bf16 shadow (its update may then be computed with bf16 factors).
bool fuses_projected_adam(const ProjectedAdamArgs& args);
/// Its direction N [m, r rounded up to the kernel's step], bf16.
Shape padded_direction(const ProjectedAdamArgs& args);

}  // namespace llmz::cuda
