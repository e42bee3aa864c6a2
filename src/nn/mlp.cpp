#include "llmz/nn/mlp.h"

#include "llmz/ops/activation.h"

namespace llmz::nn {

namespace {

/// Gate and up are the rows of one matrix.
MlpOptions fused(MlpOptions o) {
  using Role = FusedMatrix::Role;
  if (o.kind != MlpKind::swiglu) return o;
  o.up.fused = {{Role::gate, 0, o.intermediate}, {Role::up, o.intermediate, o.intermediate}};
  return o;
}

}  // namespace

MlpHalf::MlpHalf(BuildContext& context, MlpOptions options)
    : options_(fused(std::move(options))),
      precision_(context.precision),
      up_linear_(context, options_.place, options_.norm, options_.up, context.activations.gate_up_input),
      up_code_(context.make_codec(context.activations.gate_up, options_.name + ".gate_up", role::gate_up,
                                  std::vector<int64_t>(options_.kind == MlpKind::swiglu ? 2 : 1, options_.intermediate),
                                  /*linear_input=*/false, up_linear_.exact())),
      product_code_(context.make_codec(context.activations.down_input, options_.name + ".product", role::down_input,
                                       {options_.intermediate}, /*linear_input=*/true, up_code_->facts().exact)),
      down_linear_(context, options_.down, *product_code_),
      up_name_(options_.name + ".up"),
      product_name_(options_.name + ".product") {}

void MlpHalf::activate(Exec& exec, Tensor product, Tensor up, const SketchEpilogue& epilogue) const {
  if (options_.kind == MlpKind::gelu_tanh) return ops::gelu_forward(exec, product, up, epilogue);
  const int64_t width = options_.intermediate;
  ops::swiglu_forward(exec, product, up.slice(1, 0, width), up.slice(1, width, width), epilogue);
}

void MlpHalf::activate_backward(Exec& exec, Tensor up, Tensor dproduct, Tensor row_sums) const {
  if (options_.kind == MlpKind::gelu_tanh) return ops::gelu_backward(exec, up, dproduct, up, row_sums);
  const int64_t width = options_.intermediate;
  const Tensor gate = up.slice(1, 0, width), half = up.slice(1, width, width);
  ops::swiglu_backward(exec, gate, half, dproduct, gate, half, row_sums);
}

void MlpHalf::forward(Exec& exec, const Pass& pass, Tensor x) {
  Buffer up = exec.memory.take(up_name_, pass.category(*up_code_), {pass.tokens(), up_width()}, precision_.activation,
                               role::gate_up);
  up_linear_.forward(exec, pass, up.tensor(), x);
  Buffer product = exec.memory.take(product_name_, pass.category(*product_code_),
                                    {pass.tokens(), options_.intermediate}, precision_.activation, role::down_input);
  activate(exec, product.tensor(), up.tensor(),
           pass.keep ? product_code_->sketch_epilogue(exec, pass.tokens()) : SketchEpilogue());
  down_linear_.forward(exec, x, product.tensor(), /*accumulate=*/true);
  if (pass.observe) {
    up_code_->observe(exec, up.tensor());
    product_code_->observe(exec, product.tensor());
  }
  if (!pass.keep) return;
  product_code_->keep(exec, std::move(product), [this](Exec& e, Tensor into) { activate(e, into, up_.tensor()); });
  up_code_->keep(exec, std::move(up), [this](Exec& e, Tensor into) { up_linear_.rebuild(e, into); });
}

void MlpHalf::down_backward(Exec& exec, Tensor dx) {
  Buffer product;
  if (down_linear_.dense()) product = product_code_->decode(exec);
  down_linear_.weight_gradient(exec, dx, *product_code_, product.tensor());
  if (product_code_->exact_input().present()) down_linear_.probe(exec, dx, product_code_->exact_input());
  product_code_->drop();
}

void MlpHalf::backward(Exec& exec, Tensor dx) {
  up_ = up_code_->decode(exec);
  up_code_->drop();
  down_backward(exec, dx);
  Buffer dproduct = exec.memory.take("mlp.dproduct", Category::activations, {dx.dim(0), options_.intermediate},
                                     precision_.activation);
  down_linear_.input_gradient(exec, dproduct.tensor(), dx);
  Buffer row_sums;
  if (up_linear_.wants_row_sums()) {
    row_sums = exec.memory.take("mlp.row_sums", Category::activations, {dx.dim(0)}, precision_.statistic());
  }
  const Buffer dup = std::move(up_);
  activate_backward(exec, dup.tensor(), dproduct.tensor(), row_sums.tensor());
  dproduct.reset();
  up_linear_.backward(exec, dx, dup.tensor(), row_sums.tensor());
}

}  // namespace llmz::nn
