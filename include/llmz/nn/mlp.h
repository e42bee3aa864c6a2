#pragma once

#include "llmz/nn/norm.h"

namespace llmz::nn {

enum class MlpKind : uint8_t { swiglu, gelu };

struct MlpOptions {
  std::string name;
  MlpKind kind = MlpKind::swiglu;
  int64_t hidden = 0, intermediate = 0;
  NormOptions norm;
  LinearOptions up;    ///< SwiGLU: gate and up as the rows of one matrix [2F,H]; GELU: [F,H]
  LinearOptions down;  ///< [H,F]
};

/// The MLP half of a block: x += Wdown·act(Wup·norm(x)). Keeps the activation's input; the product is the down
/// projection's codec's to keep or rebuild.
class MlpHalf {
 public:
  MlpHalf(BuildContext& context, MlpOptions options);

  /// x [T,hidden], in place.
  void forward(Exec& exec, const Pass& pass, Tensor x);
  /// dx [T,hidden], in place.
  void backward(Exec& exec, Tensor dx);

 private:
  int64_t up_width() const { return (options_.kind == MlpKind::swiglu ? 2 : 1) * options_.intermediate; }
  void activate(Exec& exec, Tensor product, Tensor up) const;
  /// `up` becomes its own gradient.
  void activate_backward(Exec& exec, Tensor up, Tensor dproduct) const;

  MlpOptions options_;
  DType dtype_;
  NormLinear up_linear_;
  Linear down_linear_;
  std::string up_name_, product_name_;
  Buffer up_;
};

}  // namespace llmz::nn
