#pragma once

#include "llmz/core/gpu.h"
#include "llmz/core/tensor.h"

namespace llmz::cuda {

/// Attention by cuDNN's fused kernels. Arguments as in twins.h, rows bf16 and made of aligned 16-byte pieces. False,
/// with nothing done, where cuDNN is not in the build or not wanted (Gpu::attention; for one query), where it refuses
/// the shape, or demands more than the planned workspace. That is found out at a shape's first call, which must not be
/// one that is captured; later calls allocate nothing and wait for nothing. Throws Error where an accepted shape fails.
/// The same bits each time.
bool cudnn_attention_forward(Gpu& gpu, const Tensor& out, const Tensor& lse, const Tensor& q, const Tensor& k,
                             const Tensor& v, const Tensor& workspace);
bool cudnn_attention_backward(Gpu& gpu, const Tensor& dq, const Tensor& dk, const Tensor& dv, const Tensor& dout,
                              const Tensor& out, const Tensor& lse, const Tensor& q, const Tensor& k, const Tensor& v,
                              const Tensor& workspace);

/// Shapes that cuDNN has taken on this GPU, each pass counted by itself.
int cudnn_attention_shapes(Gpu& gpu);

}  // namespace llmz::cuda
