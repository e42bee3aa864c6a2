#include "llmz/optim/rule.h"

#include "llmz/ops/elementwise.h"

namespace llmz::optim {

namespace {

DType dtype_of_moments(const StatePrecision& precision, const Parameter& p) {
  if (p.weight.dtype == DType::f64) return DType::f64;
  return precision.bf16_moments ? DType::bf16 : DType::f32;
}

}  // namespace

Rule::Rule(const RuleContext& context, const Parameter& parameter)
    : parameter_(parameter),
      memory_(&context.memory),
      moment_dtype_(dtype_of_moments(context.precision, parameter)),
      seed_(context.precision.seed),
      index_(context.index),
      weight_decay_(context.weight_decay) {
  if (parameter.weight.dtype != DType::bf16) return;
  stochastic_ = context.precision.weights == Bf16Weights::stochastic;
  if (context.precision.weights == Bf16Weights::master) master_ = keep("master", parameter.weight.shape, DType::f32);
}

Tensor Rule::keep(const char* slot, const Shape& shape, DType dtype, bool by_rows) {
  const Tensor tensor =
      memory_->persistent(fmt::format("{}.{}", parameter_.name, slot), Category::optimizer, shape, dtype);
  states_.push_back({&parameter_, slot, tensor, by_rows});
  return tensor;
}

void Rule::weights_changed(Exec& exec) {
  if (master_.present()) ops::copy(exec, master_, parameter_.weight);
}

ops::UpdateArgs Rule::update(const StepArgs& args) const {
  return {.weight = master_.present() ? master_ : parameter_.weight,
          .grad = parameter_.grad.dense,
          .low = parameter_.grad.low,
          .grad_scale = args.grad_scale,
          .lr = args.lr,
          .weight_decay = weight_decay_,
          .step = args.step,
          .rounding = rounding(args.step)};
}

ops::WeightRounding Rule::rounding(int64_t step) const {
  ops::WeightRounding rounding;
  if (master_.present()) rounding.shadow = parameter_.weight;
  if (stochastic_) {
    rounding.stochastic = RandomStream(seed_, Purpose::weight_rounding, index_);
    const Tensor& w = parameter_.weight;
    const int64_t before = parameter_.shard.first * (w.rank() == 1 ? 1 : w.dim(1));
    // No weight has 2^40 elements; a part of one draws as the whole does.
    rounding.first = (static_cast<uint64_t>(step) << 40) + static_cast<uint64_t>(before);
  }
  return rounding;
}

}  // namespace llmz::optim
