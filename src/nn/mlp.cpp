#include "llmz/nn/mlp.h"

#include "llmz/ops/activation.h"

namespace llmz::nn {

MlpHalf::MlpHalf(BuildContext& context, MlpOptions options)
    : options_(std::move(options)),
      dtype_(context.precision.activation),
      up_linear_(context, options_.norm, options_.up),
      down_linear_(context, options_.down),
      up_name_(options_.name + ".up"),
      product_name_(options_.name + ".product") {}

void MlpHalf::activate(Exec& exec, Tensor product, Tensor up) const {
  if (options_.kind == MlpKind::gelu) return ops::gelu_forward(exec, product, up);
  const int64_t width = options_.intermediate;
  ops::swiglu_forward(exec, product, up.slice(1, 0, width), up.slice(1, width, width));
}

void MlpHalf::activate_backward(Exec& exec, Tensor up, Tensor dproduct) const {
  if (options_.kind == MlpKind::gelu) return ops::gelu_backward(exec, up, dproduct, up);
  const int64_t width = options_.intermediate;
  const Tensor gate = up.slice(1, 0, width), half = up.slice(1, width, width);
  ops::swiglu_backward(exec, gate, half, dproduct, gate, half);
}

void MlpHalf::forward(Exec& exec, const Pass& pass, Tensor x) {
  const Category category = pass.keep ? Category::codes : Category::activations;
  Buffer up = exec.memory.take(up_name_, category, {pass.tokens(), up_width()}, dtype_);
  up_linear_.forward(exec, pass, up.tensor(), x);
  Buffer product = exec.memory.take(product_name_, down_linear_.input_category(pass),
                                    {pass.tokens(), options_.intermediate}, dtype_);
  activate(exec, product.tensor(), up.tensor());
  down_linear_.forward(exec, x, product.tensor(), /*accumulate=*/true);
  if (!pass.keep) return;
  up_ = std::move(up);
  down_linear_.keep(exec, std::move(product), [this](Exec& e, Tensor into) { activate(e, into, up_.tensor()); });
}

void MlpHalf::backward(Exec& exec, Tensor dx) {
  down_linear_.weight_gradient(exec, dx);
  Buffer dproduct = exec.memory.take("mlp.dproduct", Category::activations, {dx.dim(0), options_.intermediate}, dtype_);
  down_linear_.input_gradient(exec, dproduct.tensor(), dx);
  const Buffer dup = std::move(up_);
  activate_backward(exec, dup.tensor(), dproduct.tensor());
  dproduct.reset();
  up_linear_.backward(exec, dx, dup.tensor());
}

}  // namespace llmz::nn
