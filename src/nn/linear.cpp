#include "llmz/nn/linear.h"

#include "llmz/ops/elementwise.h"
#include "llmz/ops/matmul.h"
#include "llmz/ops/projector.h"

namespace llmz::nn {

Linear::Linear(BuildContext& context, LinearOptions options, const codec::Codec& input) {
  weight_.name = options.name + ".weight";
  weight_.group = options.group;
  weight_.init_std = options.init_std;
  weight_.parts = std::move(options.weight_parts);
  weight_.fused = std::move(options.fused);
  context.add(weight_, {options.out, options.in}, input.facts().projector);
  weight_.grad.starts_with_product = dense();
  if (context.gradients && input.probing() != nullptr) {
    probe_norms_ = context.memory.persistent(weight_.name + ".probe", Category::workspace, {2}, DType::f64);
    context.gradient_probes.push_back({weight_.name, "gradient", probe_norms_});
  }
  if (options.bias_parts.empty()) return;
  bias_.name = options.name + ".bias";
  bias_.kind = ParamKind::bias;
  bias_.parts = std::move(options.bias_parts);
  context.add(bias_, {options.out});
}

void Linear::set_input_gain(const Parameter& gain, const Parameter& bias) {
  LowRankGrad& low = weight_.grad.low;
  if (!low.present()) return;
  low.column_scale = gain.weight;
  if (!bias.weight.present()) return;
  check(bias_.weight.present(), "{}: a low-rank gradient behind LayerNorm needs a linear layer with a bias",
        weight_.name);
  low.row_term = bias_.grad.dense;
  low.column_term = bias.weight;
}

void Linear::forward(Exec& exec, Tensor y, Tensor x, bool accumulate) {
  ops::matmul(
      exec, {.c = y, .a = x, .b = weight_.weight, .transpose_b = true, .accumulate = accumulate, .bias = bias_.weight});
}

void Linear::weight_gradient(Exec& exec, Tensor dy, codec::Codec& input, Tensor x) {
  if (dense()) {
    const bool accumulate = weight_.grad.accumulates();
    ops::matmul(exec, {.c = weight_.grad.dense, .a = dy, .b = x, .transpose_a = true, .accumulate = accumulate});
  } else {
    input.low_rank_grad(exec, weight_.grad.low.factor, dy, x);
  }
  if (bias_.weight.present()) ops::bias_backward(exec, bias_.grad.dense, dy);
}

void Linear::input_gradient(Exec& exec, Tensor dx, Tensor dy) {
  ops::matmul(exec, {.c = dx, .a = dy, .b = weight_.weight});
}

void Linear::probe(Exec& exec, Tensor dy, Tensor exact) {
  if (!probe_norms_.present()) return;
  const Shape shape = weight_.weight.shape;
  const DType dtype = weight_.grad.accumulator().dtype;
  const Buffer wanted = exec.memory.take("probe.gradient", Category::workspace, shape, dtype);
  ops::matmul(exec, {.c = wanted.tensor(), .a = dy, .b = exact, .transpose_a = true});
  if (dense()) return ops::difference_norms(exec, probe_norms_, weight_.grad.dense, wanted.tensor());
  const Buffer expanded = exec.memory.take("probe.expanded", Category::workspace, shape, dtype);
  ops::expand_gradient(exec, expanded.tensor(), weight_.grad.low, 0);
  ops::difference_norms(exec, probe_norms_, expanded.tensor(), wanted.tensor());
}

}  // namespace llmz::nn
