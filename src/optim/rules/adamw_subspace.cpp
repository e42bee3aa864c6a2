#include "llmz/ops/elementwise.h"
#include "llmz/ops/optimizer.h"
#include "llmz/ops/projector.h"
#include "llmz/optim/rule.h"
#include "src/optim/adam_settings.h"

namespace llmz::optim {
namespace {

/// Adam whose moments live in the subspace of a low-rank gradient's projector (CompAct, arXiv 2410.15352).
class AdamWSubspace final : public Rule {
 public:
  AdamWSubspace(const RuleContext& c, const Parameter& p)
      : Rule(c, p),
        constants_(c.settings.get<AdamSettings>().constants()),
        alpha_(c.settings.get<SubspaceConfig>().alpha),
        at_refresh_(c.settings.get<SubspaceConfig>().at_refresh) {
    check(
        !p.grad.low.column_scale.present(),
        "optimizer.moments = \"subspace\" with activations.norm.codec = \"shared\": the norm's gain, which changes at "
        "every step, would stand inside the subspace; set activations.norm.codec to store, sketch or quant");
    check(at_refresh_ != AtRefresh::rotate || made_from_a_seed(*p.grad.low.projector),
          "optimizer.subspace.at_refresh = \"rotate\" needs the projector before a refresh again, which only "
          "gaussian and sign give; use keep or reset with the others");
    m_ = keep("exp_avg", p.grad.low.factor.shape, moment_dtype());
    v_ = keep("exp_avg_sq", p.grad.low.factor.shape, moment_dtype());
  }

  void step(Exec& exec, const StepArgs& args) override {
    ops::ProjectedAdamArgs now{update(args), constants_, m_, v_, alpha_};
    if (at_refresh_ == AtRefresh::reset) now.step = parameter().grad.low.projector->age + 1;
    ops::projected_adam(exec, now);
  }

  bool refreshes() const override { return at_refresh_ != AtRefresh::keep; }
  void refresh(Exec& exec) override {
    if (!parameter().grad.low.projector->changed) return;
    if (at_refresh_ == AtRefresh::reset) {
      ops::fill(exec, m_, 0.0f);
      ops::fill(exec, v_, 0.0f);
    } else if (at_refresh_ == AtRefresh::rotate) {
      rotate(exec);
    }
  }

 private:
  static bool made_from_a_seed(const Projector& p) {
    return p.principal_rank == 0 && (p.random == Projector::Random::gaussian || p.random == Projector::Random::sign);
  }

  /// The first moment is carried over through full space, M ← (M·(P₀ᵀP₀)⁻¹·P₀ᵀ)·P with P₀ᵀP₀ ≈ (n/r)·I. The second,
  /// which has no direction, becomes the same in all directions: each row its mean.
  void rotate(Exec& exec) {
    const Projector& now = *parameter().grad.low.projector;
    Projector before = now;
    before.seed = now.previous_seed;
    const double shrink = static_cast<double>(now.rank()) / static_cast<double>(now.width);
    const Buffer full = exec.memory.take("rotate.full", Category::workspace, parameter().weight.shape, m_.dtype);
    ops::expand(exec, {.out = full.tensor(), .z = m_, .alpha = shrink}, before);
    ops::project(exec, m_, full.tensor(), now);
    ops::row_means(exec, v_);
  }

  ops::AdamConstants constants_;
  float alpha_;
  AtRefresh at_refresh_;
  Tensor m_, v_;
};

config::Fields<config::Bag> fields() { return config::in_bag(adam_fields()).merge(config::in_bag(subspace_fields())); }

void from_keys(const OptimizerConfig& c, config::Bag& settings) {
  settings.get<AdamSettings>() = adam_settings_of(c);
  settings.get<SubspaceConfig>() = c.subspace;
}

}  // namespace

extern const RuleRow kAdamWSubspace;
const RuleRow kAdamWSubspace = {
    .name = "adamw_subspace",
    .meaning = "moments in the subspace of a low-rank gradient",
    .make = make_rule<AdamWSubspace>,
    .suits = [](const Parameter& p) { return p.grad.low.present(); },
    .needs =
        "needs low-rank weight gradients: keep inputs of linear layers as sketches "
        "(activations.qkv_input.codec = \"sketch\"), or set weight_gradient.form = \"low_rank\"",
    .fields = fields,
    .from_keys = from_keys,
    .moments = Moments::subspace};

}  // namespace llmz::optim
