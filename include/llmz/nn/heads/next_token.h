#pragma once

#include "llmz/nn/head.h"
#include "llmz/nn/norm.h"

namespace llmz::nn {

struct NextTokenOptions {
  int64_t vocab = 0, hidden = 0;
  float init_std = 0.02f;
  NormOptions norm;
  std::string head_part;      ///< Hugging Face's name; unused when tied
  Parameter* tied = nullptr;  ///< the embedding table when the head shares it
};

/// Final norm, output projection and cross-entropy in one: logits exist for one chunk of tokens at a time, and their
/// gradient takes their place.
class NextTokenHead final : public Head {
 public:
  NextTokenHead(BuildContext& context, NextTokenOptions options);

  /// losses, targets [T].
  void loss(Exec& exec, const Pass& pass, Tensor losses, Tensor x, Tensor targets, float grad_scale) override;
  void backward(Exec& exec, Tensor dx) override;
  /// out [batch or T, vocab].
  void outputs(Exec& exec, const Pass& pass, Tensor out, Tensor x, Rows rows) override;

 private:
  Parameter& head() { return options_.tied != nullptr ? *options_.tied : head_; }

  NextTokenOptions options_;
  Precision precision_;
  int64_t chunk_;
  Norm norm_;
  Parameter head_;
  Buffer xhat_, dout_;
};

}  // namespace llmz::nn
