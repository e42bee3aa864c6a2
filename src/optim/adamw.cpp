#include "llmz/ops/optimizer.h"

#include "llmz/optim/optimizer.h"

namespace llmz::optim {
namespace {

/// AdamW over dense gradients (Loshchilov & Hutter 2019).
class AdamW final : public Optimizer {
 public:
  AdamW(const OptimizerConfig& config, const std::vector<Parameter*>& parameters, Memory& memory) : config_(config) {
    for (Parameter* p : parameters) {
      const DType dtype = p->grad.dense.dtype;
      Tensor m = memory.persistent(p->name + ".exp_avg", Category::optimizer, p->weight.shape, dtype);
      Tensor v = memory.persistent(p->name + ".exp_avg_sq", Category::optimizer, p->weight.shape, dtype);
      rows_.push_back({p, m, v});
    }
  }

  void step(Exec& exec, int64_t step, double lr, Tensor grad_scale) override {
    for (const Row& row : rows_) {
      ops::adamw(exec, {.weight = row.parameter->weight,
                        .grad = row.parameter->grad.dense,
                        .m = row.m,
                        .v = row.v,
                        .grad_scale = grad_scale,
                        .lr = static_cast<float>(lr * lr_scale_of(config_, *row.parameter)),
                        .beta1 = config_.beta1,
                        .beta2 = config_.beta2,
                        .eps = config_.eps,
                        .weight_decay = weight_decay_of(config_, *row.parameter),
                        .step = step});
    }
  }

  std::vector<State> states() const override {
    std::vector<State> states;
    for (const Row& row : rows_) {
      states.push_back({row.parameter, "exp_avg", row.m});
      states.push_back({row.parameter, "exp_avg_sq", row.v});
    }
    return states;
  }

 private:
  struct Row {
    Parameter* parameter;
    Tensor m, v;
  };
  OptimizerConfig config_;
  std::vector<Row> rows_;
};

}  // namespace

std::unique_ptr<Optimizer> make_adamw(const OptimizerConfig& config, const std::vector<Parameter*>& parameters,
                                      Memory& memory) {
  return std::make_unique<AdamW>(config, parameters, memory);
}

}  // namespace llmz::optim
