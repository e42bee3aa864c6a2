#pragma once

#include <optional>

#include "llmz/nn/norm.h"

namespace llmz::nn {

struct LossHeadOptions {
  int64_t vocab = 0, hidden = 0;
  int64_t chunk = 1024;  ///< tokens whose logits exist at once
  float init_std = 0.02f;
  NormOptions norm;
  std::string head_part;      ///< Hugging Face's name; unused when tied
  Parameter* tied = nullptr;  ///< the embedding table when the head shares it
};

/// Final norm, output projection and cross-entropy in one: logits exist for one chunk of tokens at a time, and their
/// gradient takes their place.
class LossHead {
 public:
  LossHead(BuildContext& context, LossHeadOptions options);

  /// losses [T] per token in nats; `targets` [T], −1 = none. With pass.keep also the head's gradients, scaled by
  /// `grad_scale`, and what `backward` needs.
  void forward(Exec& exec, const Pass& pass, Tensor losses, Tensor x, Tensor targets, float grad_scale);
  /// dx [T,hidden] += gradient of the scaled loss.
  void backward(Exec& exec, Tensor dx);
  /// logits [batch, vocab] of each sequence's last token.
  void last_logits(Exec& exec, const Pass& pass, Tensor logits, Tensor x);

 private:
  Parameter& head() { return options_.tied != nullptr ? *options_.tied : head_; }

  LossHeadOptions options_;
  Precision precision_;
  Norm norm_;
  Parameter head_;
  Buffer xhat_, dout_;
};

}  // namespace llmz::nn
