#include "llmz/nn/norm.h"

#include "llmz/ops/norm.h"

namespace llmz::nn {

Norm::Norm(BuildContext& context, NormOptions options)
    : options_(std::move(options)), precision_(context.precision), rstd_name_(options_.name + ".rstd") {
  gain_.name = options_.name + ".gain";
  gain_.group = ParamGroup::norms;
  gain_.kind = ParamKind::gain;
  gain_.init_mean = 1;
  gain_.parts = {{options_.gain_part, 0, options_.width, false}};
  context.add(gain_, {options_.width});
  if (options_.bias_part.empty()) return;
  bias_.name = options_.name + ".bias";
  bias_.group = ParamGroup::norms;
  bias_.kind = ParamKind::bias;
  bias_.parts = {{options_.bias_part, 0, options_.width, false}};
  context.add(bias_, {options_.width});
}

void Norm::forward(Exec& exec, const Pass& pass, Tensor out, Tensor xhat, Tensor x, const SketchEpilogue& epilogue) {
  const Category category = pass.keep ? Category::codes : Category::activations;
  rstd_ =
      exec.memory.take(rstd_name_, category, {x.numel() / options_.width}, precision_.statistic(), role::statistics);
  if (options_.kind == NormKind::rms) {
    ops::rmsnorm_forward(exec, out, xhat, rstd_.tensor(), x, gain_.weight, options_.eps, epilogue);
  } else {
    ops::layernorm_forward(exec, out, xhat, rstd_.tensor(), x, gain_.weight, bias_.weight, options_.eps, epilogue);
  }
  if (!pass.keep) rstd_.reset();
}

void Norm::apply_gain(Exec& exec, Tensor out, Tensor xhat) const {
  ops::norm_apply_gain(exec, out, xhat, gain_.weight, bias_.weight);
}

void Norm::backward(Exec& exec, Tensor dx, Tensor dy, Tensor xhat, Tensor row_sums) {
  if (options_.kind == NormKind::rms) {
    ops::rmsnorm_backward(exec, dx, gain_.grad.dense, dy, xhat, rstd_.tensor(), gain_.weight, row_sums);
  } else {
    ops::layernorm_backward(exec, dx, gain_.grad.dense, bias_.grad.dense, dy, xhat, rstd_.tensor(), gain_.weight,
                            row_sums);
  }
  rstd_.reset();
}

}  // namespace llmz::nn
