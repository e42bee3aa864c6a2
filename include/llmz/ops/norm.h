#pragma once

#include "llmz/core/exec.h"
#include "llmz/core/projector.h"

namespace llmz::ops {

/// RMSNorm (Zhang & Sennrich 2019) over the last dimension of x[T,H], or of x[…,H] with T rows in all, such as the
/// heads of a token:
///   rstd[t] = 1/√(mean(x²) + eps),  x̂ = x·rstd,  out = x̂·gain.
/// `xhat` may be absent; where present it is written in its own dtype and `out` is made from what was written, so
/// that `norm_apply_gain(out, xhat, gain)` later repeats `out` bit for bit. `rstd` [T] is f32 (f64 for f64). `sketch`:
/// of `out`, where present.
void rmsnorm_forward(Exec& exec, Tensor out, Tensor xhat, Tensor rstd, Tensor x, Tensor gain, float eps,
                     const SketchEpilogue& epilogue = {});

/// LayerNorm (Ba et al. 2016): x̂ = (x − mean)·rstd with the biased variance, out = x̂·gain + bias.
/// Same contract as `rmsnorm_forward`; the mean is not kept, backward does not need it.
void layernorm_forward(Exec& exec, Tensor out, Tensor xhat, Tensor rstd, Tensor x, Tensor gain, Tensor bias, float eps,
                       const SketchEpilogue& epilogue = {});

/// out[T,H] = x̂·gain (+ bias where present): the norm's output again, from the stored x̂.
void norm_apply_gain(Exec& exec, Tensor out, Tensor xhat, Tensor gain, Tensor bias);

/// dx += rstd·(dx̂ − x̂·c) with dx̂ = dy·gain and c = mean(dx̂·x̂);  dgain += Σ_t dy·x̂. Accumulates in both.
/// dx [T,H] overlaps neither dy nor xhat. `row_sums` [T] (f32, f64 for f64), where present, holds Σ_features dx̂·x̂,
/// which is then not computed: for an x̂ that is only approximate here, but whose exact sum is known from elsewhere.
void rmsnorm_backward(Exec& exec, Tensor dx, Tensor dgain, Tensor dy, Tensor xhat, Tensor rstd, Tensor gain,
                      Tensor row_sums = {});

/// dx += rstd·(dx̂ − mean(dx̂) − x̂·c);  dgain += Σ_t dy·x̂;  dbias += Σ_t dy. Otherwise as rmsnorm_backward.
void layernorm_backward(Exec& exec, Tensor dx, Tensor dgain, Tensor dbias, Tensor dy, Tensor xhat, Tensor rstd,
                        Tensor gain, Tensor row_sums = {});

}  // namespace llmz::ops
