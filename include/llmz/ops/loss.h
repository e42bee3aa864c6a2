#pragma once

#include "llmz/core/exec.h"

namespace llmz::ops {

/// Per row of logits [T,V]: losses[t] = logsumexp(logits[t]) − logits[t][targets[t]], in nats. losses [T] f32
/// (f64 for f64), overwritten; targets [T] i32, −1 = no target (loss 0, gradient 0).
/// With `write_gradient` the logits are replaced by dlogits = grad_scale·(softmax − onehot); otherwise they stay.
/// Rows of logits may be strided.
void softmax_cross_entropy(Exec& exec, Tensor losses, Tensor logits, Tensor targets, bool write_gradient,
                           float grad_scale);

}  // namespace llmz::ops
