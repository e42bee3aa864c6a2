#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "llmz/core/exec.h"
#include "llmz/core/parameter.h"
#include "llmz/optim/config.h"

namespace llmz::optim {

/// Turns weight gradients into weight updates. State lives in the planned arena, category `optimizer`.
class Optimizer {
 public:
  virtual ~Optimizer() = default;

  /// One update of every parameter. `step` counts from 1; `lr` is the scheduled rate before group scales; gradients
  /// count as grad·grad_scale (one f32 on the device: the clipping coefficient).
  virtual void step(Exec& exec, int64_t step, double lr, Tensor grad_scale) = 0;

  /// The projectors of low-rank gradients have just changed where projector->changed says so: moments that live in
  /// their subspace follow. Called between the refresh and the first micro-step.
  virtual void refresh(Exec&) {}
  /// Whether `refresh` does anything.
  virtual bool refreshes() const { return false; }

  /// Weights were set from outside (initial values, another model's): master copies follow them.
  virtual void weights_changed(Exec&) {}

  /// A named state tensor of one parameter; `slot` is PyTorch's name for it (exp_avg …) where it has one.
  struct State {
    const Parameter* parameter = nullptr;
    std::string slot;
    Tensor tensor;
    bool by_rows = true;  ///< its rows are the parameter's rows; else it belongs to the parameter as a whole
  };
  /// Every state tensor, for checkpoints.
  virtual std::vector<State> states() const = 0;
};

/// Makes the optimizer that `config.name` names; Error listing the known names otherwise.
std::unique_ptr<Optimizer> make_optimizer(const OptimizerConfig& config, const std::vector<Parameter*>& parameters,
                                          Memory& memory, const StatePrecision& precision = {});
std::vector<std::string> optimizer_names();

std::unique_ptr<Optimizer> make_adamw(const OptimizerConfig& config, const std::vector<Parameter*>& parameters,
                                      Memory& memory, const StatePrecision& precision);

/// lr_scale of the parameter's group.
float lr_scale_of(const OptimizerConfig& config, const Parameter& parameter);
/// Decoupled decay coefficient of the parameter: 0 for norms, biases and embeddings unless config.decay_on says so.
float weight_decay_of(const OptimizerConfig& config, const Parameter& parameter);

/// Global gradient norm and clipping coefficient (PyTorch's clip_grad_norm_), kept on the device.
class GradientClip {
 public:
  /// Of parameters that are split over ranks (their shard says so) each rank measures its rows.
  GradientClip(float max_norm, const std::vector<Parameter*>& parameters, Memory& memory);

  /// Measures all gradients; afterwards `scale()` is what `Optimizer::step` wants. Inside a program; collective where
  /// parameters are split.
  void measure(Exec& exec);
  Tensor scale() const { return scale_; }
  Tensor norm() const { return norm_; }

 private:
  float max_norm_;
  std::vector<Parameter*> parameters_;
  Tensor total_, norm_, scale_;
};

}  // namespace llmz::optim
