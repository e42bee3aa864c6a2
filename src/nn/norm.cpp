#include "llmz/nn/norm.h"

#include "llmz/ops/norm.h"

namespace llmz::nn {

Norm::Norm(BuildContext& context, NormOptions options)
    : options_(std::move(options)),
      precision_(context.precision),
      xhat_name_(options_.name + ".xhat"),
      rstd_name_(options_.name + ".rstd") {
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

void Norm::forward(Exec& exec, const Pass& pass, Tensor out, Tensor x) {
  const Category category = pass.keep ? Category::codes : Category::activations;
  rstd_ = exec.memory.take(rstd_name_, category, {pass.tokens()}, precision_.statistic());
  if (pass.keep) xhat_ = exec.memory.take(xhat_name_, category, {pass.tokens(), options_.width}, precision_.activation);
  if (options_.kind == NormKind::rms) {
    ops::rmsnorm_forward(exec, out, xhat_.tensor(), rstd_.tensor(), x, gain_.weight, options_.eps);
  } else {
    ops::layernorm_forward(exec, out, xhat_.tensor(), rstd_.tensor(), x, gain_.weight, bias_.weight, options_.eps);
  }
  if (!pass.keep) rstd_.reset();
}

void Norm::rebuild(Exec& exec, Tensor out) const {
  ops::norm_apply_gain(exec, out, xhat_.tensor(), gain_.weight, bias_.weight);
}

void Norm::backward(Exec& exec, Tensor dx, Tensor dy) {
  if (options_.kind == NormKind::rms) {
    ops::rmsnorm_backward(exec, dx, gain_.grad.dense, dy, xhat_.tensor(), rstd_.tensor(), gain_.weight);
  } else {
    ops::layernorm_backward(exec, dx, gain_.grad.dense, bias_.grad.dense, dy, xhat_.tensor(), rstd_.tensor(),
                            gain_.weight);
  }
  xhat_.reset();
  rstd_.reset();
}

NormLinear::NormLinear(BuildContext& context, NormOptions norm, LinearOptions linear)
    : norm_(context, norm),
      linear_(context, std::move(linear)),
      width_(norm.width),
      dtype_(context.precision.activation),
      out_name_(norm.name + ".out"),
      dout_name_(norm.name + ".dout") {}

void NormLinear::forward(Exec& exec, const Pass& pass, Tensor y, Tensor x) {
  Buffer out = exec.memory.take(out_name_, linear_.input_category(pass), {pass.tokens(), width_}, dtype_);
  norm_.forward(exec, pass, out.tensor(), x);
  linear_.forward(exec, y, out.tensor());
  if (pass.keep) {
    linear_.keep(exec, std::move(out), [this](Exec& e, Tensor into) { norm_.rebuild(e, into); });
  }
}

void NormLinear::backward(Exec& exec, Tensor dx, Tensor dy) {
  linear_.weight_gradient(exec, dy);
  const Buffer dout = exec.memory.take(dout_name_, Category::activations, {dy.dim(0), width_}, dtype_);
  linear_.input_gradient(exec, dout.tensor(), dy);
  norm_.backward(exec, dx, dout.tensor());
}

}  // namespace llmz::nn
