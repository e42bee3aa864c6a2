#pragma once

#include <memory>
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

/// Where a block's norms stand. `before`: x += f(norm(x)). `after`: x = norm(x + f(x)), as the Transformer was first
/// written. A norm is then computed where it is next read: a half begins with the norm that ends the one before, so the
/// first half's is the embedding's, the head's is the last block's, and what is kept is the same for both.
enum class NormPlace : uint8_t { before, after };

/// RMSNorm or LayerNorm of rows of `width` numbers. Keeps rstd; x̂, from which its backward and its output can be made,
/// is the caller's to keep.
class Norm {
 public:
  Norm(BuildContext& context, NormOptions options);

  /// out = norm(x), [T,width] or more dimensions; x̂ is written where `xhat` is present, and a sketch of out where one
  /// is asked for.
  void forward(Exec& exec, const Pass& pass, Tensor out, Tensor xhat, Tensor x, const SketchEpilogue& epilogue = {});
  /// The output again, bit for bit where x̂ is the written one.
  void apply_gain(Exec& exec, Tensor out, Tensor xhat) const;
  /// dx += gradient through the norm; gain (and bias) gradients accumulate. `row_sums` [T]: Σ dx̂·x̂ where it is better
  /// known than from `xhat`. Drops rstd.
  void backward(Exec& exec, Tensor dx, Tensor dy, Tensor xhat, Tensor row_sums = {});

  const Parameter& gain() const { return gain_; }
  const Parameter& bias() const { return bias_; }
  int64_t width() const { return options_.width; }

 private:
  NormOptions options_;
  Precision precision_;
  Parameter gain_, bias_;
  std::string rstd_name_;
  Buffer rstd_;
};

/// A norm and the linear layer that reads it: the unit that owns what is kept of the residual stream. Either one code
/// of x̂ serves the norm's backward and the weight gradient (activations.norm = shared), or each has its own: of x̂, and
/// of the norm's output.
class NormLinear {
 public:
  NormLinear(BuildContext& context, NormPlace place, NormOptions norm, LinearOptions linear,
             const codec::CodecConfig& input);

  /// y [T,out] = linear(norm(x)); with NormPlace::after x becomes norm(x).
  void forward(Exec& exec, const Pass& pass, Tensor y, Tensor x);
  /// y again from the code of the input.
  void rebuild(Exec& exec, Tensor y);
  /// Whether the kept input is exact.
  bool exact() const { return input_code_->facts().exact && xhat_code().facts().exact; }
  /// Whether `backward` asks for row sums of the outputs: where x̂ is only approximate. Not with NormPlace::after, where
  /// the stream reads the norm too, and the outputs tell of a part of its gradient only: the code must do.
  bool wants_row_sums() const { return wants_row_sums_; }
  /// dx becomes the gradient of x, from dy [T,out] and, as it was, from the stream behind; `row_sums` [T] = Σ_features
  /// dy·y where wanted (it is used up).
  void backward(Exec& exec, Tensor dx, Tensor dy, Tensor row_sums);

 private:
  bool shared() const { return norm_code_ == nullptr; }
  codec::Codec& xhat_code() const { return shared() ? *input_code_ : *norm_code_; }
  Tensor decoded_xhat(Exec& exec);
  Buffer input_from_xhat(Exec& exec);
  void weight_gradient(Exec& exec, Tensor dy);
  void make_row_sums_exact(Exec& exec, Tensor row_sums, Tensor dy, Tensor dout) const;

  NormPlace place_;
  Norm norm_;
  std::unique_ptr<codec::Codec> input_code_;  ///< of x̂ when shared, else of the norm's output
  std::unique_ptr<codec::Codec> norm_code_;   ///< of x̂; null when shared
  Linear linear_;
  DType dtype_;
  bool wants_row_sums_;
  std::string xhat_name_, out_name_, dout_name_;
  Buffer xhat_;  ///< decoded, from its first use in backward to its last
};

}  // namespace llmz::nn
