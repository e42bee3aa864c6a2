#pragma once

// The CPU side of every op: same names and arguments as include/llmz/ops, in namespace llmz::cpu, plus the workspace
// where an op needs one (src/ops takes it from the plan). Arguments arrive checked. Contracts stand in the op headers.

#include "llmz/core/random.h"
#include "llmz/core/tensor.h"
#include "llmz/ops/attention_mask.h"
#include "llmz/ops/matmul.h"
#include "llmz/ops/optimizer.h"
#include "llmz/ops/quant.h"

namespace llmz::cpu {

using ops::AdamWArgs;
using ops::FactoredAdamWArgs;
using ops::MatmulArgs;
using ops::ProjectedAdamArgs;
using ops::QuantFormat;

// matmul.cpp; workspace f32 [matmul_workspace(args)], absent when that is 0 (it holds copies: of pitched operands where
// bf16 is multiplied by bf16, else fp32 ones of bf16 operands). multiplies_bf16: whether the processor has AVX-512 bf16
// or AMX, and oneDNN is let use it (ONEDNN_MAX_CPU_ISA)
bool multiplies_bf16();
int64_t matmul_workspace(const MatmulArgs& args);
void matmul(const MatmulArgs& args, Tensor workspace);
void add_bias(Tensor y, Tensor bias);
void bias_backward(Tensor dbias, Tensor dy);

// norm.cpp; workspace [norm_blocks(T), H] (dgain) or [norm_blocks(T), 2H] (dgain, dbias), f32 or f64
int64_t norm_blocks(int64_t rows);
void rmsnorm_forward(Tensor out, Tensor xhat, Tensor rstd, Tensor x, Tensor gain, float eps);
void layernorm_forward(Tensor out, Tensor xhat, Tensor rstd, Tensor x, Tensor gain, Tensor bias, float eps);
void norm_apply_gain(Tensor out, Tensor xhat, Tensor gain, Tensor bias);
void rmsnorm_backward(Tensor dx, Tensor dgain, Tensor dy, Tensor xhat, Tensor rstd, Tensor gain, Tensor row_sums,
                      Tensor workspace);
void layernorm_backward(Tensor dx, Tensor dgain, Tensor dbias, Tensor dy, Tensor xhat, Tensor rstd, Tensor gain,
                        Tensor row_sums, Tensor workspace);

// rotary.cpp
void rotary(Tensor x, int64_t position_offset, float base, bool inverse);

// attention.cpp; workspace [threads, elements a thread], f32 or f64
Shape attention_forward_workspace(const Tensor& q, const Tensor& k);
Shape attention_backward_workspace(const Tensor& q, const Tensor& k);
void attention_forward(Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v, const ops::AttentionMask& mask,
                       Tensor workspace);
void attention_backward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out, Tensor lse, Tensor q, Tensor k,
                        Tensor v, const ops::AttentionMask& mask, Tensor workspace);

// quant.cpp; workspace f32 [n] for the signs, absent without a rotation
void quantize(Tensor codes, Tensor scales, Tensor x, const QuantFormat& format, const RandomStream& signs,
              const RandomStream& rounding, Tensor workspace);
void dequantize(Tensor x, Tensor codes, Tensor scales, const QuantFormat& format, const RandomStream& signs,
                Tensor workspace);

// activation.cpp
void swiglu_forward(Tensor out, Tensor gate, Tensor up);
void swiglu_backward(Tensor dgate, Tensor dup, Tensor dout, Tensor gate, Tensor up, Tensor row_sums);
void gelu_forward(Tensor out, Tensor x);
void gelu_backward(Tensor dx, Tensor dout, Tensor x, Tensor row_sums);

// embedding.cpp
void embedding_forward(Tensor out, Tensor tokens, Tensor table, Tensor positions, int64_t seq_len,
                       int64_t position_offset);
void embedding_backward(Tensor dtable, Tensor dpositions, Tensor dout, Tensor tokens, int64_t seq_len);

// loss.cpp
void softmax_cross_entropy(Tensor losses, Tensor logits, Tensor targets, bool write_gradient, float grad_scale);

// elementwise.cpp
void add(Tensor y, Tensor x);
void row_dot(Tensor sums, Tensor a, Tensor b, float alpha, bool accumulate);
void add_sum(Tensor total, Tensor x);
void set_identity(Tensor x);
void row_means(Tensor x);
void difference_norms(Tensor norms, Tensor a, Tensor b, Tensor workspace);  // f64 [2·row_blocks(a)]
int64_t row_blocks(Tensor t);
void copy(Tensor out, Tensor in);
void round_stochastically(Tensor out, Tensor in, const RandomStream& stream, uint64_t first);
void scale(Tensor x, double factor);
void fill(Tensor x, double value);
void fill_normal(Tensor x, const RandomStream& stream, uint64_t first, float stddev);

// optimizer.cpp
void adamw(const AdamWArgs& args);

// optimizer_projected.cpp: the moments and the direction N [m,r]
void adam_direction(const ProjectedAdamArgs& args, Tensor direction);

// optimizer_factored.cpp: statistics of every tile of the gradient, then the moments, then the update of every tile.
// sums f64 [factored_blocks(m), n]. factored_moments: column = (β₂·column, with_old) + (1−β₂)·Σ_i g²/mean_rows() and
// mean f64 [1] = Σ_i row_i/mean_rows(), which ranks that share a weight then add up
int64_t factored_blocks(int64_t rows);
void factored_statistics(const FactoredAdamWArgs& args, int64_t first_row, Tensor tile, Tensor sums);
void factored_moments(const FactoredAdamWArgs& args, Tensor sums, Tensor mean, bool with_old);
void factored_update(const FactoredAdamWArgs& args, int64_t first_row, Tensor tile, Tensor mean);
int64_t sum_pieces(Tensor x);  // workspace of sum_of_squares: f64 [sum_pieces(x)]
void sum_of_squares(Tensor total, Tensor x, Tensor workspace);
void clip_coefficient(Tensor norm, Tensor scale, Tensor total, float max_norm);

}  // namespace llmz::cpu
