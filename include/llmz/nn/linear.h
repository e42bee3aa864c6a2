#pragma once

#include <string>

#include "llmz/nn/context.h"

namespace llmz::nn {

struct LinearOptions {
  std::string name;
  int64_t in = 0, out = 0;
  ParamGroup group = ParamGroup::blocks;
  float init_std = 0.02f;
  std::vector<ParameterPart> weight_parts;
  std::vector<FusedMatrix> fused = {};         ///< the layer's own: what stands in the rows of the weight
  std::vector<ParameterPart> bias_parts = {};  ///< empty = no bias
};

/// Y = X·Wᵀ (+ b), W [out,in]. Its weight gradient comes from the code of X, which the caller owns; dX = dY·W is always
/// exact.
class Linear {
 public:
  /// `input` is the codec of X: it says whether the weight gradient is dense or low-rank.
  Linear(BuildContext& context, LinearOptions options, const codec::Codec& input);

  /// y [T,out] = x·Wᵀ (+ b), or added to y when `accumulate`.
  void forward(Exec& exec, Tensor y, Tensor x, bool accumulate = false);
  /// dW += dyᵀ·X, db += Σ dy. A dense dW comes from `x`, X as decoded; a low-rank one from the code, or from `x`, the
  /// coded tensor as decoded, where that is present and the code is no sketch.
  void weight_gradient(Exec& exec, Tensor dy, codec::Codec& input, Tensor x);
  /// dx [T,in] = dy·W.
  void input_gradient(Exec& exec, Tensor dx, Tensor dy);

  /// Whether `weight_gradient` needs the decoded X.
  bool dense() const { return !weight_.grad.low.present(); }
  /// The coded tensor is x̂ and X = x̂∘gain (+ bias): what the expanded gradient takes into account.
  void set_input_gain(const Parameter& gain, const Parameter& bias);
  const Parameter& bias() const { return bias_; }

  /// A probing pass only: the error of the weight gradient, which holds this pass's alone, against dyᵀ·exact.
  void probe(Exec& exec, Tensor dy, Tensor exact);

 private:
  Parameter weight_, bias_;
  Tensor probe_norms_;
};

}  // namespace llmz::nn
