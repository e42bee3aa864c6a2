#include <algorithm>

#include "src/optim/rule.h"

namespace llmz::optim {
namespace {

/// AdamW (Loshchilov & Hutter 2019) over dense or low-rank gradients, its moments kept as optimizer.moments says.
class AdamW final : public Optimizer {
 public:
  AdamW(const OptimizerConfig& config, const std::vector<Parameter*>& parameters, Memory& memory,
        const StatePrecision& precision)
      : config_(config) {
    validate(config);
    for (size_t i = 0; i < parameters.size(); ++i) {
      rows_.push_back(
          {parameters[i], make_moments({config, precision, static_cast<uint32_t>(i)}, *parameters[i], memory)});
    }
    subspace_ = std::any_of(parameters.begin(), parameters.end(), [&](auto* p) { return in_subspace(config, *p); });
    check(config.moments != "subspace" || subspace_,
          "optimizer.moments = \"subspace\" needs low-rank weight gradients: keep inputs of linear layers as sketches "
          "(activations.qkv_input.codec = \"sketch\"), or set weight_gradient.form = \"low_rank\"");
  }

  void step(Exec& exec, int64_t step, double lr, Tensor grad_scale) override {
    // Low-rank gradients first: they are expanded with the norms' gains, which must still be those of the backward
    // pass.
    for (const bool low : {true, false}) {
      for (const Row& row : rows_) {
        if (row.parameter->grad.low.present() != low) continue;
        const auto scaled = static_cast<float>(lr * static_cast<double>(lr_scale_of(config_, *row.parameter)));
        row.moments->step(exec, {.step = step, .lr = scaled, .grad_scale = grad_scale});
      }
    }
  }

  void refresh(Exec& exec) override {
    for (const Row& row : rows_) row.moments->refresh(exec);
  }
  void weights_changed(Exec& exec) override {
    for (const Row& row : rows_) row.moments->weights_changed(exec);
  }
  bool refreshes() const override { return subspace_ && config_.subspace.at_refresh != "keep"; }

  std::vector<State> states() const override {
    std::vector<State> states;
    for (const Row& row : rows_) row.moments->list(states);
    return states;
  }

 private:
  struct Row {
    const Parameter* parameter;
    std::unique_ptr<Moments> moments;
  };

  static bool in_subspace(const OptimizerConfig& config, const Parameter& p) {
    return config.moments == "subspace" && p.grad.low.present();
  }
  static std::unique_ptr<Moments> make_moments(const MomentsOptions& o, const Parameter& p, Memory& memory) {
    if (in_subspace(o.config, p)) return make_subspace_moments(o, p, memory);
    if (o.config.moments == "factored" && p.weight.rank() == 2) return make_factored_moments(o, p, memory);
    return make_full_moments(o, p, memory);
  }

  OptimizerConfig config_;
  std::vector<Row> rows_;
  bool subspace_ = false;
};

}  // namespace

std::unique_ptr<Optimizer> make_adamw(const OptimizerConfig& config, const std::vector<Parameter*>& parameters,
                                      Memory& memory, const StatePrecision& precision) {
  return std::make_unique<AdamW>(config, parameters, memory, precision);
}

}  // namespace llmz::optim
