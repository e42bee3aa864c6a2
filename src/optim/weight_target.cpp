#include "src/optim/weight_target.h"

#include "llmz/ops/elementwise.h"

namespace llmz::optim {

WeightTarget::WeightTarget(const StatePrecision& precision, const Parameter& p, uint32_t index, Memory& memory)
    : parameter_(p), seed_(precision.seed), index_(index) {
  if (p.weight.dtype != DType::bf16) return;
  stochastic_ = precision.weights == "stochastic";
  if (precision.weights == "master") {
    master_ = memory.persistent(p.name + ".master", Category::optimizer, p.weight.shape, DType::f32);
  }
}

ops::UpdateArgs WeightTarget::update(const StepArgs& args, float weight_decay) const {
  return {.weight = weight(),
          .grad = parameter_.grad.dense,
          .low = parameter_.grad.low,
          .grad_scale = args.grad_scale,
          .lr = args.lr,
          .weight_decay = weight_decay,
          .step = args.step,
          .rounding = rounding(args.step)};
}

ops::WeightRounding WeightTarget::rounding(int64_t step) const {
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

void WeightTarget::list(std::vector<Optimizer::State>& states) const {
  if (master_.present()) states.push_back({&parameter_, "master", master_});
}

void WeightTarget::weights_changed(Exec& exec) const {
  if (master_.present()) ops::copy(exec, master_, parameter_.weight);
}

DType moment_dtype(const StatePrecision& precision, const Parameter& p) {
  if (p.weight.dtype == DType::f64) return DType::f64;
  return precision.bf16_moments ? DType::bf16 : DType::f32;
}

}  // namespace llmz::optim
