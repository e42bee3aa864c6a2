#pragma once

#include <vector>

#include "llmz/ops/update.h"
#include "llmz/optim/optimizer.h"
#include "src/optim/rule.h"

namespace llmz::optim {

/// What an optimizer op updates of one parameter, and how the result is rounded: the weight itself, or the fp32 master
/// copy of a bf16 weight.
class WeightTarget {
 public:
  /// `index`: the parameter's place in the model, which selects its random numbers.
  WeightTarget(const StatePrecision& precision, const Parameter& p, uint32_t index, Memory& memory);

  Tensor weight() const { return master_.present() ? master_ : parameter_.weight; }
  /// What every update takes, of this parameter.
  ops::UpdateArgs update(const StepArgs& args, float weight_decay) const;
  void list(std::vector<Optimizer::State>& states) const;
  void weights_changed(Exec& exec) const;

 private:
  ops::WeightRounding rounding(int64_t step) const;

  const Parameter& parameter_;
  Tensor master_;  ///< absent where the weight is not bf16 or has none
  bool stochastic_ = false;
  uint64_t seed_ = 0;
  uint32_t index_ = 0;
};

/// Type of a moment that is a tensor of its own.
DType moment_dtype(const StatePrecision& precision, const Parameter& p);

}  // namespace llmz::optim
