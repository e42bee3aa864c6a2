#include "llmz/nn/linear.h"

#include "llmz/ops/matmul.h"

namespace llmz::nn {

Linear::Linear(BuildContext& context, LinearOptions options) : codec_(codec::make_codec(options.codec)) {
  weight_.name = options.name + ".weight";
  weight_.init_std = options.init_std;
  weight_.parts = std::move(options.weight_parts);
  context.add(weight_, {options.out, options.in});
  if (options.bias_part.empty()) return;
  bias_.name = options.name + ".bias";
  bias_.kind = ParamKind::bias;
  bias_.parts = {{options.bias_part, 0, options.out, false}};
  context.add(bias_, {options.out});
}

void Linear::forward(Exec& exec, Tensor y, Tensor x, bool accumulate) {
  ops::matmul(exec, {.c = y, .a = x, .b = weight_.weight, .transpose_b = true, .accumulate = accumulate});
  if (bias_.weight.present()) ops::add_bias(exec, y, bias_.weight);
}

void Linear::weight_gradient(Exec& exec, Tensor dy) {
  codec_->weight_grad(exec, dy, weight_.grad);
  codec_->drop();
  if (bias_.weight.present()) ops::bias_backward(exec, bias_.grad.dense, dy);
}

void Linear::input_gradient(Exec& exec, Tensor dx, Tensor dy) {
  ops::matmul(exec, {.c = dx, .a = dy, .b = weight_.weight});
}

}  // namespace llmz::nn
