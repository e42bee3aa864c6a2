#include "llmz/ops/elementwise.h"
#include "llmz/ops/optimizer.h"
#include "llmz/ops/projector.h"
#include "src/optim/rule.h"
#include "src/optim/weight_target.h"

namespace llmz::optim {
namespace {

class SubspaceMoments final : public Moments {
 public:
  SubspaceMoments(const MomentsOptions& o, const Parameter& p, Memory& memory)
      : config_(o.config), parameter_(p), target_(o.precision, p, o.index, memory) {
    const LowRankGrad& low = p.grad.low;
    check(
        !low.column_scale.present(),
        "optimizer.moments = \"subspace\" with activations.norm.codec = \"shared\": the norm's gain, which changes at "
        "every step, would stand inside the subspace; set activations.norm.codec to store, sketch or quant");
    check(o.config.subspace.at_refresh != "rotate" || made_from_a_seed(*low.projector),
          "optimizer.subspace.at_refresh = \"rotate\" needs the projector before a refresh again, which only gaussian "
          "and "
          "sign give; use keep or reset with the others");
    const DType dtype = moment_dtype(o.precision, p);
    m_ = memory.persistent(p.name + ".exp_avg", Category::optimizer, low.factor.shape, dtype);
    v_ = memory.persistent(p.name + ".exp_avg_sq", Category::optimizer, low.factor.shape, dtype);
  }

  void step(Exec& exec, const StepArgs& args) override {
    const bool reset = config_.subspace.at_refresh == "reset";
    const int64_t since_reset = parameter_.grad.low.projector->age + 1;
    ops::ProjectedAdamArgs now{target_.update(args, weight_decay_of(config_, parameter_)),
                               {config_.beta1, config_.beta2, config_.eps},
                               m_,
                               v_,
                               config_.subspace.alpha};
    if (reset) now.step = since_reset;
    ops::projected_adam(exec, now);
  }

  void refresh(Exec& exec) override {
    if (!parameter_.grad.low.projector->changed) return;
    if (config_.subspace.at_refresh == "reset") {
      ops::fill(exec, m_, 0.0f);
      ops::fill(exec, v_, 0.0f);
    } else if (config_.subspace.at_refresh == "rotate") {
      rotate(exec);
    }
  }

  void list(std::vector<Optimizer::State>& states) const override {
    target_.list(states);
    states.push_back({&parameter_, "exp_avg", m_});
    states.push_back({&parameter_, "exp_avg_sq", v_});
  }
  void weights_changed(Exec& exec) override { target_.weights_changed(exec); }

 private:
  static bool made_from_a_seed(const Projector& p) {
    return p.principal_rank == 0 && (p.random == Projector::Random::gaussian || p.random == Projector::Random::sign);
  }

  /// The first moment is carried over through full space, M ← (M·(P₀ᵀP₀)⁻¹·P₀ᵀ)·P with P₀ᵀP₀ ≈ (n/r)·I. The second,
  /// which has no direction, becomes the same in all directions: each row its mean.
  void rotate(Exec& exec) {
    const Projector& now = *parameter_.grad.low.projector;
    Projector before = now;
    before.seed = now.previous_seed;
    const double shrink = static_cast<double>(now.rank()) / static_cast<double>(now.width);
    const Buffer full = exec.memory.take("rotate.full", Category::workspace, parameter_.weight.shape, m_.dtype);
    ops::expand(exec, {.out = full.tensor(), .z = m_, .alpha = shrink}, before);
    ops::project(exec, m_, full.tensor(), now);
    ops::row_means(exec, v_);
  }

  OptimizerConfig config_;
  const Parameter& parameter_;
  WeightTarget target_;
  Tensor m_, v_;
};

}  // namespace

std::unique_ptr<Moments> make_subspace_moments(const MomentsOptions& options, const Parameter& p, Memory& memory) {
  return std::make_unique<SubspaceMoments>(options, p, memory);
}

}  // namespace llmz::optim
