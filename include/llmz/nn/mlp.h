#pragma once

#include "llmz/nn/norm.h"

namespace llmz::nn {

/// gelu_tanh: GELU by its tanh formula, GPT-2's. A further kind (GELU by erf, as RoBERTa and GPT-NeoX have it) is a
/// name here, its op, and a case in MlpHalf::activate and activate_backward.
enum class MlpKind : uint8_t { swiglu, gelu_tanh };

struct MlpOptions {
  std::string name;
  MlpKind kind = MlpKind::swiglu;
  int64_t hidden = 0, intermediate = 0;
  NormPlace place = NormPlace::before;
  NormOptions norm;
  LinearOptions up;    ///< SwiGLU: gate and up as the rows of one matrix [2F,H]; GELU: [F,H]
  LinearOptions down;  ///< [H,F]
};

/// The MLP half of a block: x += Wdown·act(Wup·norm(x)), or with the norm after (NormPlace). Keeps codes of the
/// activation's input (gate and up) and of the product that the down projection reads; either may be rebuilt instead.
class MlpHalf {
 public:
  MlpHalf(BuildContext& context, MlpOptions options);

  /// x [T,hidden], in place.
  void forward(Exec& exec, const Pass& pass, Tensor x);
  /// dx [T,hidden], in place.
  void backward(Exec& exec, Tensor dx);

 private:
  int64_t up_width() const { return (options_.kind == MlpKind::swiglu ? 2 : 1) * options_.intermediate; }
  void activate(Exec& exec, Tensor product, Tensor up, const SketchEpilogue& epilogue = {}) const;
  /// `up` becomes its own gradient.
  void activate_backward(Exec& exec, Tensor up, Tensor dproduct, Tensor row_sums) const;
  void down_backward(Exec& exec, Tensor dx);

  MlpOptions options_;
  Precision precision_;
  NormLinear up_linear_;
  std::unique_ptr<codec::Codec> up_code_, product_code_;
  Linear down_linear_;
  std::string up_name_, product_name_;
  Buffer up_;  ///< decoded, from its first use in backward to its last
};

}  // namespace llmz::nn
