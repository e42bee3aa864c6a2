#pragma once

#include "llmz/core/exec.h"
#include "llmz/ops/attention_mask.h"

namespace llmz::ops {

/// Rotary position embedding (Su et al. 2021), in place on x[B,S,heads,D], D even, in Hugging Face's layout: the
/// pair of element i is i + D/2, turned by angle (position_offset + s)·base^(−2i/D). `inverse` turns back: that is
/// the backward pass.
void rotary(Exec& exec, Tensor x, int64_t position_offset, float base, bool inverse);

/// Softmax attention with scale 1/√D. q [B,Sq,heads,D]; k, v [B,Skv,kv_heads,D] with heads a multiple of
/// kv_heads (query head h reads key/value head h/(heads/kv_heads)); Skv ≥ Sq: the queries are the last Sq
/// positions and see the keys that `mask` says. out [B,Sq,heads,D]; lse [B,heads,Sq] is the row's
/// log-sum-exp of the scaled scores, f32 (f64 for f64); a query that sees no key (of padding) has 0 for both. Any
/// strides with D dense. No Sq×Skv matrix is ever stored, only tiles. Overwrites out and lse.
void attention_forward(Exec& exec, Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v,
                       const AttentionMask& mask = {});

/// Gradients dq, dk, dv (overwritten; shapes of q, k, v) from dout; probabilities come again from lse.
/// No gradient aliases an input. Same bits from run to run for a given thread count. `out` may be absent: then
/// Σ dout·out of a row, all that is needed of it, comes from Σ_keys p·(dout·v), one more pass over the keys.
void attention_backward(Exec& exec, Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out, Tensor lse, Tensor q,
                        Tensor k, Tensor v, const AttentionMask& mask = {});

}  // namespace llmz::ops
