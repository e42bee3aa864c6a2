#include "llmz/ops/optimizer.h"
#include "src/optim/rule.h"
#include "src/optim/weight_target.h"

namespace llmz::optim {
namespace {

class FactoredMoments final : public Moments {
 public:
  FactoredMoments(const MomentsOptions& o, const Parameter& p, Memory& memory)
      : config_(o.config), parameter_(p), target_(o.precision, p, o.index, memory) {
    const DType dtype = p.weight.dtype == DType::f64 ? DType::f64 : DType::f32;
    const int64_t rows = p.weight.dim(0), columns = p.weight.dim(1);
    const auto keep = [&](const char* slot, Shape shape, DType type) {
      return memory.persistent(p.name + slot, Category::optimizer, shape, type);
    };
    if (o.config.first_moment_bits == 8) {
      m_codes_ = keep(".exp_avg_8bit", p.weight.shape, DType::u8);
      m_scales_ = keep(".exp_avg_scale", {rows, (columns + ops::kMomentBlock - 1) / ops::kMomentBlock}, DType::f32);
    } else {
      m_ = keep(".exp_avg", p.weight.shape, dtype);
    }
    row_ = keep(".exp_avg_sq_row", {rows}, dtype);
    column_ = keep(".exp_avg_sq_col", {columns}, dtype);
  }

  void step(Exec& exec, const StepArgs& args) override {
    ops::factored_adamw(exec, {target_.update(args, weight_decay_of(config_, parameter_)),
                               {config_.beta1, config_.beta2, config_.eps},
                               m_,
                               m_codes_,
                               m_scales_,
                               row_,
                               column_,
                               parameter_.shard.whole});
  }

  void list(std::vector<Optimizer::State>& states) const override {
    target_.list(states);
    if (m_.present()) {
      states.push_back({&parameter_, "exp_avg", m_});
    } else {
      states.push_back({&parameter_, "exp_avg_8bit", m_codes_});
      states.push_back({&parameter_, "exp_avg_scale", m_scales_});
    }
    states.push_back({&parameter_, "exp_avg_sq_row", row_});
    states.push_back({&parameter_, "exp_avg_sq_col", column_, /*by_rows=*/false});
  }
  void weights_changed(Exec& exec) override { target_.weights_changed(exec); }

 private:
  OptimizerConfig config_;
  const Parameter& parameter_;
  WeightTarget target_;
  Tensor m_, m_codes_, m_scales_, row_, column_;
};

}  // namespace

std::unique_ptr<Moments> make_factored_moments(const MomentsOptions& options, const Parameter& p, Memory& memory) {
  return std::make_unique<FactoredMoments>(options, p, memory);
}

}  // namespace llmz::optim
