#include "llmz/ops/optimizer.h"
#include "llmz/optim/rule.h"

namespace llmz::optim {
namespace {

/// AdamW (Loshchilov & Hutter 2019): two moments of the parameter's shape.
class AdamW final : public Rule {
 public:
  AdamW(const RuleContext& c, const Parameter& p)
      : Rule(c, p),
        constants_(c.constants()),
        m_(keep("exp_avg", p.weight.shape, moment_dtype())),
        v_(keep("exp_avg_sq", p.weight.shape, moment_dtype())) {}

  void step(Exec& exec, const StepArgs& args) override { ops::adamw(exec, {update(args), constants_, m_, v_}); }

 private:
  ops::AdamConstants constants_;
  Tensor m_, v_;
};

constexpr RuleField kFields[] = {
    {"beta1", "decay of the first moment", 0, 1},
    {"beta2", "decay of the second moment", 0, 1},
    {"eps", "added to the root of the second moment", 0, 1},
};

}  // namespace

extern const RuleRow kAdamW;
const RuleRow kAdamW = {
    .name = "adamw", .meaning = "both moments whole", .make = make_rule<AdamW>, .fields = kFields, .moments = "full"};

}  // namespace llmz::optim
