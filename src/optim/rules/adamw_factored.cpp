#include "llmz/ops/optimizer.h"
#include "llmz/optim/rule.h"

namespace llmz::optim {
namespace {

/// AdamW with a factored second moment (Adafactor, Shazeer & Stern 2018) and a first of 32 or 8 bits.
class AdamWFactored final : public Rule {
 public:
  AdamWFactored(const RuleContext& c, const Parameter& p) : Rule(c, p), constants_(c.constants()) {
    const int64_t rows = p.weight.dim(0), columns = p.weight.dim(1);
    const float bits = c.number("first_moment_bits", static_cast<float>(c.config.first_moment_bits));
    check(bits == 8 || bits == 32, "{}: first_moment_bits = {} is not known; allowed: 32, 8", p.name, bits);
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

constexpr RuleField kFields[] = {
    {"beta1", "decay of the first moment", 0, 1},
    {"beta2", "decay of the second moment", 0, 1},
    {"eps", "added to the root of the second moment", 0, 1},
    {"first_moment_bits", "of a number of the first moment: 32 or 8", 8, 32},
};

}  // namespace

extern const RuleRow kAdamWFactored;
const RuleRow kAdamWFactored = {.name = "adamw_factored",
                                .meaning = "second moment of matrices as a row and a column",
                                .make = make_rule<AdamWFactored>,
                                .suits = is_matrix,
                                .needs = "needs matrices",
                                .fields = kFields,
                                .moments = "factored"};

}  // namespace llmz::optim
