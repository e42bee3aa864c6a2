#include "llmz/ops/optimizer.h"
#include "llmz/optim/rule.h"
#include "src/optim/adam_settings.h"

namespace llmz::optim {
namespace {

/// AdamW (Loshchilov & Hutter 2019): two moments of the parameter's shape.
class AdamW final : public Rule {
 public:
  AdamW(const RuleContext& c, const Parameter& p)
      : Rule(c, p),
        constants_(c.settings.get<AdamSettings>().constants()),
        m_(keep("exp_avg", p.weight.shape, moment_dtype())),
        v_(keep("exp_avg_sq", p.weight.shape, moment_dtype())) {}

  void step(Exec& exec, const StepArgs& args) override { ops::adamw(exec, {update(args), constants_, m_, v_}); }

 private:
  ops::AdamConstants constants_;
  Tensor m_, v_;
};

config::Fields<config::Bag> fields() { return config::in_bag(adam_fields()); }

void from_keys(const OptimizerConfig& c, config::Bag& settings) { settings.get<AdamSettings>() = adam_settings_of(c); }

}  // namespace

extern const RuleRow kAdamW;
const RuleRow kAdamW = {.name = "adamw",
                        .meaning = "both moments whole",
                        .make = make_rule<AdamW>,
                        .fields = fields,
                        .from_keys = from_keys,
                        .moments = Moments::full};

}  // namespace llmz::optim
