#include "llmz/codec/settings.h"
#include "llmz/nn/norm.h"
#include "llmz/ops/elementwise.h"

namespace llmz::nn {
namespace {

std::unique_ptr<codec::Codec> make_norm_code(BuildContext& context, const NormOptions& norm) {
  if (codec::codec_row(context.activations.norm.codec).make == nullptr) return nullptr;  // the input's code serves
  return context.make_codec(context.activations.norm, norm.name + ".xhat", role::norm_input, {norm.width},
                            /*linear_input=*/false);
}

}  // namespace

NormLinear::NormLinear(BuildContext& context, NormPlace place, NormOptions norm, LinearOptions linear,
                       const codec::CodecConfig& input)
    : place_(place),
      norm_(context, norm),
      input_code_(context.make_codec(input, linear.name + ".input", role::norm_input, {norm.width},
                                     /*linear_input=*/true,
                                     /*source_exact=*/codec::codec_row(context.activations.norm.codec).exact)),
      norm_code_(make_norm_code(context, norm)),
      linear_(context, std::move(linear), *input_code_),
      dtype_(context.precision.activation),
      wants_row_sums_(!xhat_code().facts().exact && place == NormPlace::before &&
                      context.activations.norm_constant == NormConstant::outputs),
      xhat_name_(norm.name + ".xhat"),
      out_name_(norm.name + ".out"),
      dout_name_(norm.name + ".dout") {
  if (shared()) linear_.set_input_gain(norm_.gain(), norm_.bias());
}

void NormLinear::forward(Exec& exec, const Pass& pass, Tensor y, Tensor x) {
  const Shape shape = {pass.tokens(), norm_.width()};
  Buffer xhat;
  if (pass.keep || pass.observe)
    xhat = exec.memory.take(xhat_name_, pass.category(xhat_code()), shape, dtype_, role::norm_input);
  const Category category = shared() ? Category::activations : pass.category(*input_code_);
  Buffer out = exec.memory.take(out_name_, category, shape, dtype_, role::norm_input);
  SketchEpilogue epilogue;
  if (pass.keep && !shared()) epilogue = input_code_->sketch_epilogue(exec, pass.tokens());
  norm_.forward(exec, pass, out.tensor(), xhat.tensor(), x, epilogue);
  linear_.forward(exec, y, out.tensor());
  if (place_ == NormPlace::after) ops::copy(exec, x, out.tensor());
  if (pass.observe) {
    xhat_code().observe(exec, xhat.tensor());
    if (!shared()) input_code_->observe(exec, out.tensor());
  }
  if (!pass.keep) return;
  if (shared()) {
    out.reset();
  } else {
    input_code_->keep(exec, std::move(out),
                      [this](Exec& e, Tensor into) { norm_.apply_gain(e, into, decoded_xhat(e)); });
  }
  xhat_code().keep(exec, std::move(xhat), nullptr);
}

Tensor NormLinear::decoded_xhat(Exec& exec) {
  if (!xhat_) xhat_ = xhat_code().decode(exec);
  return xhat_.tensor();
}

Buffer NormLinear::input_from_xhat(Exec& exec) {
  const Tensor xhat = decoded_xhat(exec);
  Buffer out = exec.memory.take(out_name_, Category::activations, xhat.shape, dtype_);
  norm_.apply_gain(exec, out.tensor(), xhat);
  return out;
}

void NormLinear::rebuild(Exec& exec, Tensor y) {
  const Buffer x = shared() ? input_from_xhat(exec) : input_code_->decode(exec);
  linear_.forward(exec, y, x.tensor());
}

void NormLinear::weight_gradient(Exec& exec, Tensor dy) {
  Buffer x;
  if (linear_.dense()) {
    x = shared() ? input_from_xhat(exec) : input_code_->decode(exec);
  } else if (shared() && !input_code_->facts().is_sketch) {
    decoded_xhat(exec);
    x = xhat_;
  }
  linear_.weight_gradient(exec, dy, *input_code_, x.tensor());
  const Tensor exact = input_code_->exact_input();
  if (!exact.present()) return;
  if (shared()) norm_.apply_gain(exec, exact, exact);  // from x̂ to the layer's input
  linear_.probe(exec, dy, exact);
}

/// Σ dy·y = Σ dout·out (+ Σ dy·b of the linear layer), and out = x̂∘gain (+ the norm's bias): what is left is Σ dx̂·x̂.
void NormLinear::make_row_sums_exact(Exec& exec, Tensor row_sums, Tensor dy, Tensor dout) const {
  if (linear_.bias().weight.present()) ops::row_dot(exec, row_sums, dy, linear_.bias().weight, -1.0f, true);
  if (norm_.bias().weight.present()) ops::row_dot(exec, row_sums, dout, norm_.bias().weight, -1.0f, true);
}

void NormLinear::backward(Exec& exec, Tensor dx, Tensor dy, Tensor row_sums) {
  weight_gradient(exec, dy);
  if (!shared()) input_code_->drop();
  const Buffer dout = exec.memory.take(dout_name_, Category::activations, {dy.dim(0), norm_.width()}, dtype_);
  linear_.input_gradient(exec, dout.tensor(), dy);
  if (place_ == NormPlace::after) {
    ops::add(exec, dout.tensor(), dx);
    ops::fill(exec, dx, 0.0);
  }
  if (wants_row_sums_) make_row_sums_exact(exec, row_sums, dy, dout.tensor());
  norm_.backward(exec, dx, dout.tensor(), decoded_xhat(exec), wants_row_sums_ ? row_sums : Tensor());
  xhat_.reset();
  xhat_code().drop();
}

}  // namespace llmz::nn
