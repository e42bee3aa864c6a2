#pragma once

// The CUDA side of every op: same names and arguments as include/llmz/ops, in namespace llmz::cuda, with the GPU first
// and the workspace last where an op needs one (its shape: workspace.h). Arguments arrive checked, f32 or bf16. All
// work is put on the GPU's stream and nothing waits for it. Contracts stand in the op headers.

#include "kernels/cuda/workspace.h"
#include "llmz/core/gpu.h"
#include "llmz/core/projector.h"
#include "llmz/core/random.h"
#include "llmz/core/tensor.h"

namespace llmz::cuda {

/// Of the rows that an op writes, also z [T,r] by a sign projector's tables (sign_tables). z is absent where none is
/// wanted.
struct SketchEpilogue {
  Tensor z = {}, index = {}, signs = {};
};

// matmul.cu
void matmul(Gpu& gpu, const MatmulArgs& args, Tensor workspace);
void add_bias(Gpu& gpu, Tensor y, Tensor bias);
void bias_backward(Gpu& gpu, Tensor dbias, Tensor dy, Tensor workspace);

// norm.cu
void rmsnorm_forward(Gpu& gpu, Tensor out, Tensor xhat, Tensor rstd, Tensor x, Tensor gain, float eps,
                     const SketchEpilogue& epilogue);
void layernorm_forward(Gpu& gpu, Tensor out, Tensor xhat, Tensor rstd, Tensor x, Tensor gain, Tensor bias, float eps,
                       const SketchEpilogue& epilogue);
void norm_apply_gain(Gpu& gpu, Tensor out, Tensor xhat, Tensor gain, Tensor bias);
void rmsnorm_backward(Gpu& gpu, Tensor dx, Tensor dgain, Tensor dy, Tensor xhat, Tensor rstd, Tensor gain,
                      Tensor row_sums, Tensor workspace);
void layernorm_backward(Gpu& gpu, Tensor dx, Tensor dgain, Tensor dbias, Tensor dy, Tensor xhat, Tensor rstd,
                        Tensor gain, Tensor row_sums, Tensor workspace);

// rotary.cu
void rotary(Gpu& gpu, Tensor x, int64_t position_offset, float base, bool inverse);

// attention.cu
void attention_forward(Gpu& gpu, Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v, const ops::AttentionMask& mask,
                       Tensor workspace);
void attention_backward(Gpu& gpu, Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out, Tensor lse, Tensor q,
                        Tensor k, Tensor v, const ops::AttentionMask& mask, Tensor workspace);

// quant.cu
void quantize(Gpu& gpu, Tensor codes, Tensor scales, Tensor x, const QuantFormat& format, const RandomStream& signs,
              const RandomStream& rounding);
void dequantize(Gpu& gpu, Tensor x, Tensor codes, Tensor scales, const QuantFormat& format, const RandomStream& signs);

// activation.cu
void swiglu_forward(Gpu& gpu, Tensor out, Tensor gate, Tensor up, const SketchEpilogue& epilogue);
void swiglu_backward(Gpu& gpu, Tensor dgate, Tensor dup, Tensor dout, Tensor gate, Tensor up, Tensor row_sums);
void gelu_forward(Gpu& gpu, Tensor out, Tensor x, const SketchEpilogue& epilogue);
void gelu_backward(Gpu& gpu, Tensor dx, Tensor dout, Tensor x, Tensor row_sums);

// embedding.cu
void embedding_forward(Gpu& gpu, Tensor out, Tensor tokens, Tensor table, Tensor positions, int64_t seq_len,
                       int64_t position_offset);
void embedding_backward(Gpu& gpu, Tensor dtable, Tensor dpositions, Tensor dout, Tensor tokens, int64_t seq_len,
                        Tensor workspace);

// loss.cu
void softmax_cross_entropy(Gpu& gpu, Tensor losses, Tensor logits, Tensor targets, bool write_gradient,
                           float grad_scale);

// elementwise.cu
void add(Gpu& gpu, Tensor y, Tensor x);
void row_dot(Gpu& gpu, Tensor sums, Tensor a, Tensor b, float alpha, bool accumulate);
void add_sum(Gpu& gpu, Tensor total, Tensor x, Tensor workspace);
void set_identity(Gpu& gpu, Tensor x);
void row_means(Gpu& gpu, Tensor x);
void difference_norms(Gpu& gpu, Tensor norms, Tensor a, Tensor b, Tensor workspace);
void copy(Gpu& gpu, Tensor out, Tensor in);
void round_stochastically(Gpu& gpu, Tensor out, Tensor in, const RandomStream& stream, uint64_t first);
void scale(Gpu& gpu, Tensor x, double factor);
void fill(Gpu& gpu, Tensor x, double value);
void fill_normal(Gpu& gpu, Tensor x, const RandomStream& stream, uint64_t first, float stddev);

// optimizer.cu
void adamw(Gpu& gpu, const AdamWArgs& args);
void sum_of_squares(Gpu& gpu, Tensor total, Tensor x, Tensor workspace);
void clip_coefficient(Gpu& gpu, Tensor norm, Tensor scale, Tensor total, float max_norm);

// optimizer_projected.cu: the moments and the direction N [m,r] (bf16: [m, r rounded up], zeros behind r); then weight
// += factor·N·Pᵀ, decayed and rounded as the arguments say, for what fuses_projected_adam (workspace.h) takes
void adam_direction(Gpu& gpu, const ProjectedAdamArgs& args, Tensor direction);
void projected_update(Gpu& gpu, const ProjectedAdamArgs& args, Tensor direction, double factor);

// optimizer_factored.cu: as kernels/cpu/twins.h; the squares by row stand in `sums` too, until factored_moments
void factored_statistics(Gpu& gpu, const FactoredAdamWArgs& args, int64_t first_row, Tensor tile, Tensor sums);
void factored_moments(Gpu& gpu, const FactoredAdamWArgs& args, Tensor sums, Tensor mean, bool with_old);
void factored_update(Gpu& gpu, const FactoredAdamWArgs& args, int64_t first_row, Tensor tile, Tensor mean);

// projector.cu: as kernels/cpu/projector.h
void sign_tables(Gpu& gpu, Tensor index, Tensor signs, const Projector& p);
void sign_project(Gpu& gpu, Tensor z, Tensor x, Tensor index, Tensor signs);
void sign_expand(Gpu& gpu, Tensor out, Tensor z, Tensor index, Tensor signs, double alpha, bool accumulate);
void sign_weights(Gpu& gpu, Tensor weights, Tensor scale, Tensor index);
void gaussian_matrix(Gpu& gpu, Tensor r, const Projector& p);

// decompose.cu: as kernels/cpu/decompose.h, with one wait for the GPU, so not while a graph is captured
void orthonormalize(Gpu& gpu, Tensor basis, Tensor against, Tensor work);
void leading_eigenvectors(Gpu& gpu, Tensor basis, Tensor values, Tensor gram, Tensor work);

}  // namespace llmz::cuda
