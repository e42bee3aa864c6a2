#pragma once

#include "kernels/cpu/attention_geometry.h"

namespace llmz::cpu {

/// Attention of bf16 by the processor's products of bf16 pairs (AVX-512 bf16): twice as many a cycle as in fp32, and
/// operands half as large. Sums are fp32; probabilities and the gradients of scores are rounded to bf16 where they are
/// factors, as on a GPU's tensor cores. Tiles as in attention_tiles.h.
bool multiplies_pairs();

/// Workspace [threads, pairs_*_workspace], f32. Of other arguments than bf16 tensors, and where multiplies_pairs() is
/// false, nothing may be asked.
int64_t pairs_forward_workspace(const Tensor& q, const Tensor& k);
int64_t pairs_backward_workspace(const Tensor& q, const Tensor& k);
void pairs_forward(const Tensor& out, const Tensor& lse, const Tensor& q, const Tensor& k, const Tensor& v,
                   const ops::AttentionMask& mask, const Tensor& workspace);
void pairs_backward(const BackwardTensors& x, const ops::AttentionMask& mask, const Tensor& workspace);

}  // namespace llmz::cpu
