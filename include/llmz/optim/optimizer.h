#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "llmz/core/exec.h"
#include "llmz/core/parameter.h"
#include "llmz/optim/config.h"
#include "llmz/optim/rule.h"

namespace llmz::optim {

/// Turns weight gradients into weight updates: which rule updates which parameter, in which order, at which rate. State
/// lives in the planned arena, category `optimizer`.
class Optimizer {
 public:
  using State = optim::State;

  /// `choices`: the rule of each parameter (choose_rules).
  Optimizer(const OptimizerConfig& config, const std::vector<Parameter*>& parameters,
            const std::vector<RuleChoice>& choices, Memory& memory, const StatePrecision& precision);

  /// One update of every parameter that this rank has a share in. `step` counts from 1; `lr` is the scheduled rate
  /// before group scales; gradients count as grad·grad_scale (one f32 on the device: the clipping coefficient).
  void step(Exec& exec, int64_t step, double lr, Tensor grad_scale);

  /// The projectors of low-rank gradients have just changed where projector->changed says so: states that live in
  /// their subspace follow. Called between the refresh and the first micro-step.
  void refresh(Exec& exec);
  /// Whether `refresh` does anything.
  bool refreshes() const;

  /// Periods of what rules renew between backward and update, ascending; and those that end at `step`, which counts
  /// from 1: all of them in step 1.
  std::vector<int64_t> periods() const;
  std::vector<int64_t> periods_due(int64_t step) const;
  /// What is due is renewed, after the gradients are complete and before `step`, of which it takes the arguments.
  void renew(Exec& exec, std::span<const int64_t> due, int64_t step, double lr, Tensor grad_scale);

  /// Weights were set from outside (initial values, another model's): master copies follow them.
  void weights_changed(Exec& exec);

  /// Every state tensor, for checkpoints; without data where another rank alone has it.
  std::vector<State> states() const;

 private:
  struct Row {
    const Parameter* parameter;
    double lr_scale;
    std::unique_ptr<Rule> rule;
  };
  StepArgs args_of(const Row& row, int64_t step, double lr, const Tensor& grad_scale) const;

  /// Where the rules of parameters live that other ranks update: nowhere, but their states have names and shapes.
  std::unique_ptr<Memory> elsewhere_;
  std::vector<Row> rows_;
};

/// Makes the optimizer that `config` describes; Error listing the known names for an unknown one.
std::unique_ptr<Optimizer> make_optimizer(const OptimizerConfig& config, const std::vector<Parameter*>& parameters,
                                          Memory& memory, const StatePrecision& precision = {},
                                          RuleTable table = rule_table());
std::vector<std::string> optimizer_names();

/// lr_scale of the parameter's group.
float lr_scale_of(const OptimizerConfig& config, const Parameter& parameter);
/// Decoupled decay coefficient of the parameter: 0 for norms, biases and embeddings unless config.decay_on says so.
float weight_decay_of(const OptimizerConfig& config, const Parameter& parameter);

/// Global gradient norm and clipping coefficient (PyTorch's clip_grad_norm_), kept on the device.
class GradientClip {
 public:
  /// Of parameters that are spread over ranks (their shard or owner says so) each rank measures what it has.
  GradientClip(float max_norm, const std::vector<Parameter*>& parameters, Memory& memory);

  /// Measures all gradients; afterwards `scale()` is what `Optimizer::step` wants. Inside a program; collective where
  /// parameters are spread.
  void measure(Exec& exec);
  Tensor scale() const { return scale_; }
  Tensor norm() const { return norm_; }

 private:
  float max_norm_;
  std::vector<Parameter*> parameters_;
  Tensor total_, norm_, scale_;
};

}  // namespace llmz::optim
