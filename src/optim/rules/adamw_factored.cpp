#include "llmz/ops/optimizer.h"
#include "llmz/optim/rule.h"
#include "src/optim/adam_settings.h"

namespace llmz::optim {
namespace {

struct FactoredSettings {
  int64_t first_moment_bits = 32;
};

/// AdamW with a factored second moment (Adafactor, Shazeer & Stern 2018) and a first of 32 or 8 bits.
class AdamWFactored final : public Rule {
 public:
  AdamWFactored(const RuleContext& c, const Parameter& p)
      : Rule(c, p), constants_(c.settings.get<AdamSettings>().constants()) {
    const int64_t rows = p.weight.dim(0), columns = p.weight.dim(1);
    const int64_t bits = c.settings.get<FactoredSettings>().first_moment_bits;
    if (bits == 8) {
      m_codes_ = keep("exp_avg_8bit", p.weight.shape, DType::u8);
      m_scales_ = keep("exp_avg_scale", {rows, (columns + ops::kMomentBlock - 1) / ops::kMomentBlock}, DType::f32);
    } else {
      m_ = keep("exp_avg", p.weight.shape, statistic_dtype());
    }
    row_ = keep("exp_avg_sq_row", {rows}, statistic_dtype());
    column_ = keep("exp_avg_sq_col", {columns}, statistic_dtype(), /*by_rows=*/false);
  }

  void step(Exec& exec, const StepArgs& args) override {
    ops::factored_adamw(exec,
                        {update(args), constants_, m_, m_codes_, m_scales_, row_, column_, parameter().shard.whole});
  }

 private:
  ops::AdamConstants constants_;
  Tensor m_, m_codes_, m_scales_, row_, column_;
};

config::Fields<config::Bag> fields() {
  return config::in_bag(adam_fields())
      .merge(config::in_bag(
          config::Fields<FactoredSettings>().key("first_moment_bits", &FactoredSettings::first_moment_bits,
                                                 "of a number of the first moment: 32 or 8", config::between(8, 32))));
}

void check_settings(const config::Bag& settings, const std::string& entry) {
  const int64_t bits = settings.get<FactoredSettings>().first_moment_bits;
  check(bits == 8 || bits == 32, "{}.first_moment_bits = {} is not known; allowed: 32, 8", entry, bits);
}

void from_keys(const OptimizerConfig& c, config::Bag& settings) {
  settings.get<AdamSettings>() = adam_settings_of(c);
  settings.get<FactoredSettings>() = {c.first_moment_bits};
}

}  // namespace

extern const RuleRow kAdamWFactored;
const RuleRow kAdamWFactored = {.name = "adamw_factored",
                                .meaning = "second moment of matrices as a row and a column",
                                .make = make_rule<AdamWFactored>,
                                .suits = is_matrix,
                                .needs = "needs matrices",
                                .fields = fields,
                                .check = check_settings,
                                .from_keys = from_keys,
                                .moments = Moments::factored};

}  // namespace llmz::optim
