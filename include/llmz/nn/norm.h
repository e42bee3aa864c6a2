#pragma once

#include <string>

#include "llmz/nn/linear.h"

namespace llmz::nn {

enum class NormKind : uint8_t { rms, layer };

struct NormOptions {
  std::string name;
  NormKind kind = NormKind::rms;
  int64_t width = 0;
  float eps = 1e-6f;
  std::string gain_part, bias_part;  ///< Hugging Face's names; bias_part is empty for RMSNorm
};

/// RMSNorm or LayerNorm. Keeps x̂ and rstd, from which both its backward and its output can be made.
class Norm {
 public:
  Norm(BuildContext& context, NormOptions options);

  /// out = norm(x), [T,width].
  void forward(Exec& exec, const Pass& pass, Tensor out, Tensor x);
  /// The last kept output again, bit for bit.
  void rebuild(Exec& exec, Tensor out) const;
  /// dx += gradient through the norm; gain (and bias) gradients accumulate. Drops x̂ and rstd.
  void backward(Exec& exec, Tensor dx, Tensor dy);

 private:
  NormOptions options_;
  Precision precision_;
  Parameter gain_, bias_;
  std::string xhat_name_, rstd_name_;
  Buffer xhat_, rstd_;
};

/// A norm and the linear layer that reads it: the unit that owns everything kept of the residual stream.
class NormLinear {
 public:
  NormLinear(BuildContext& context, NormOptions norm, LinearOptions linear);

  /// y [T,out] = linear(norm(x)).
  void forward(Exec& exec, const Pass& pass, Tensor y, Tensor x);
  /// dx += gradient through both, from dy [T,out].
  void backward(Exec& exec, Tensor dx, Tensor dy);

 private:
  Norm norm_;
  Linear linear_;
  int64_t width_;
  DType dtype_;
  std::string out_name_, dout_name_;
};

}  // namespace llmz::nn
