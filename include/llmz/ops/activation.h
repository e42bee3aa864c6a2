#pragma once

#include "llmz/core/exec.h"
#include "llmz/core/projector.h"

namespace llmz::ops {

/// SwiGLU (Shazeer 2020): out = silu(gate)·up, silu(z) = z/(1 + e^−z). All [T,F], rows may be strided (gate and
/// up are the two halves of one [T,2F] buffer). `sketch`: of `out`, where present.
void swiglu_forward(Exec& exec, Tensor out, Tensor gate, Tensor up, const SketchEpilogue& epilogue = {});

/// dgate = dout·up·silu'(gate), dup = dout·silu(gate). Overwrites; dgate may be gate itself, dup may be up.
/// `row_sums` [T] (f32, f64 for f64), where present, becomes Σ_features dgate·gate + dup·up of each row, from the
/// values before they are overwritten.
void swiglu_backward(Exec& exec, Tensor dgate, Tensor dup, Tensor dout, Tensor gate, Tensor up, Tensor row_sums = {});

/// GELU, tanh form (as GPT-2): out = ½x(1 + tanh(√(2/π)(x + 0.044715x³))). [T,F]. `sketch`: of `out`.
void gelu_forward(Exec& exec, Tensor out, Tensor x, const SketchEpilogue& epilogue = {});

/// dx = dout·gelu'(x). Overwrites; dx may be dout or x itself. `row_sums` [T] where present: Σ_features dx·x.
void gelu_backward(Exec& exec, Tensor dx, Tensor dout, Tensor x, Tensor row_sums = {});

}  // namespace llmz::ops
