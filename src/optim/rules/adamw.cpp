#include "llmz/ops/optimizer.h"
#include "src/optim/rule.h"
#include "src/optim/weight_target.h"

namespace llmz::optim {
namespace {

class FullMoments final : public Moments {
 public:
  FullMoments(const MomentsOptions& o, const Parameter& p, Memory& memory)
      : config_(o.config), parameter_(p), target_(o.precision, p, o.index, memory) {
    const DType dtype = moment_dtype(o.precision, p);
    m_ = memory.persistent(p.name + ".exp_avg", Category::optimizer, p.weight.shape, dtype);
    v_ = memory.persistent(p.name + ".exp_avg_sq", Category::optimizer, p.weight.shape, dtype);
  }

  void step(Exec& exec, const StepArgs& args) override {
    ops::adamw(exec, {target_.update(args, weight_decay_of(config_, parameter_)),
                      {config_.beta1, config_.beta2, config_.eps},
                      m_,
                      v_});
  }
  void list(std::vector<Optimizer::State>& states) const override {
    target_.list(states);
    states.push_back({&parameter_, "exp_avg", m_});
    states.push_back({&parameter_, "exp_avg_sq", v_});
  }
  void weights_changed(Exec& exec) override { target_.weights_changed(exec); }

 private:
  OptimizerConfig config_;
  const Parameter& parameter_;
  WeightTarget target_;
  Tensor m_, v_;
};

}  // namespace

std::unique_ptr<Moments> make_full_moments(const MomentsOptions& options, const Parameter& p, Memory& memory) {
  return std::make_unique<FullMoments>(options, p, memory);
}

}  // namespace llmz::optim
