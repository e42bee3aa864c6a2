#pragma once

#include "llmz/nn/context.h"

namespace llmz::nn {

/// What a model ends in: it turns the residual stream x [T,hidden] into losses, and into what a user asks for. Begins
/// with the model's last norm.
class Head {
 public:
  enum class Rows : uint8_t { last, all };  ///< of a sequence's tokens

  virtual ~Head() = default;
  /// losses, one a target, in nats; a target of −1 is none. With pass.keep also the head's gradients, scaled by
  /// `grad_scale`, and what `backward` needs.
  virtual void loss(Exec& exec, const Pass& pass, Tensor losses, Tensor x, Tensor targets, float grad_scale) = 0;
  /// dx [T,hidden] += gradient of the scaled loss.
  virtual void backward(Exec& exec, Tensor dx) = 0;
  /// out [batch or T, outputs]: logits.
  virtual void outputs(Exec& exec, const Pass& pass, Tensor out, Tensor x, Rows rows) = 0;
};

}  // namespace llmz::nn
