#pragma once

#include <memory>
#include <string>

#include "llmz/codec/codec.h"
#include "llmz/nn/context.h"

namespace llmz::nn {

struct LinearOptions {
  std::string name;
  int64_t in = 0, out = 0;
  float init_std = 0.02f;
  std::vector<ParameterPart> weight_parts;
  std::string bias_part;  ///< Hugging Face's name of the bias; empty = no bias
  codec::CodecConfig codec;
};

/// Y = X·Wᵀ (+ b), W [out,in]. Owns the codec that keeps X for the weight gradient; dX = dY·W is always exact.
class Linear {
 public:
  Linear(BuildContext& context, LinearOptions options);

  /// y [T,out] = x·Wᵀ (+ b), or added to y when `accumulate`.
  void forward(Exec& exec, Tensor y, Tensor x, bool accumulate = false);
  /// Hands the input over to the codec; after `forward`, when a backward pass follows.
  void keep(Exec& exec, Buffer x, codec::Rebuild rebuild) { codec_->keep(exec, std::move(x), std::move(rebuild)); }
  Category input_category(const Pass& pass) const {
    return pass.keep ? codec_->input_category() : Category::activations;
  }
  /// dW += dYᵀ·X (as the codec makes it), db += Σ dY; then the code is dropped.
  void weight_gradient(Exec& exec, Tensor dy);
  /// dx [T,in] = dy·W.
  void input_gradient(Exec& exec, Tensor dx, Tensor dy);

 private:
  Parameter weight_, bias_;
  std::unique_ptr<codec::Codec> codec_;
};

}  // namespace llmz::nn
