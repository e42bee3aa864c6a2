#pragma once

#include "llmz/core/exec.h"

namespace llmz::ops {

/// C[m,n] = alpha · op(A)[m,k] · op(B)[k,n]  (+ C when `accumulate`) (+ bias[n] on every row), op = transpose when
/// asked.
/// `a` and `b` are stored as [m,k] or, transposed, [k,m]; likewise b. Rows may be strided, elements in a row
/// are dense. fp32 accumulation (fp64 for f64). A, B, C, bias may differ in dtype between f32 and bf16; f64
/// stays with f64. C overlaps neither A nor B. Same inputs, shape and thread count give the same bits.
/// Adds 2·m·n·k to `exec.flops`.
struct MatmulArgs {
  Tensor c = {}, a = {}, b = {};
  bool transpose_a = false;
  bool transpose_b = false;
  bool accumulate = false;
  double alpha = 1.0;  ///< rounded to the type that is computed in
  Tensor bias = {};    ///< absent = none
};
void matmul(Exec& exec, const MatmulArgs& args);

/// Whether products of bf16 by bf16 are computed as such on `device`: on GPUs, and on CPUs with AVX-512 bf16 or AMX.
/// Another CPU widens bf16 operands to fp32 copies first, which costs memory and gains no speed.
bool multiplies_bf16(DeviceType device);

/// The type in which a long `x` is best multiplied by something short, that may be rounded to it: x's own, but f32 for
/// bf16 where products are not computed in bf16.
DType product_dtype(const Exec& exec, const Tensor& x);

/// y[T,m] += bias[m] on every row.
void add_bias(Exec& exec, Tensor y, Tensor bias);

/// dbias[m] += sum over rows of dy[T,m], in an order fixed by T alone.
void bias_backward(Exec& exec, Tensor dbias, Tensor dy);

}  // namespace llmz::ops
