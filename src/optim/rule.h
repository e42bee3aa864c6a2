#pragma once

#include <memory>
#include <vector>

#include "llmz/optim/optimizer.h"

namespace llmz::optim {

/// One step's common arguments.
struct StepArgs {
  int64_t step = 1;  ///< counts from 1
  float lr = 0;      ///< scheduled, times the parameter's own scale
  Tensor grad_scale;
};

/// What moments are made from, beside their parameter and its `index`, which is its place in the model.
struct MomentsOptions {
  const OptimizerConfig& config;
  const StatePrecision& precision;
  uint32_t index = 0;
};

/// The moments of one parameter and how it is updated with them: where moments live is a choice per parameter, since a
/// gain or a dense gradient has no subspace.
class Moments {
 public:
  virtual ~Moments() = default;
  virtual void step(Exec& exec, const StepArgs& args) = 0;
  virtual void refresh(Exec&) {}
  virtual void weights_changed(Exec&) {}
  virtual void list(std::vector<Optimizer::State>& states) const = 0;
};

/// Two tensors of the parameter's shape.
std::unique_ptr<Moments> make_full_moments(const MomentsOptions& options, const Parameter& p, Memory& memory);
/// A factored second moment, a first of 32 or 8 bits. For matrices.
std::unique_ptr<Moments> make_factored_moments(const MomentsOptions& options, const Parameter& p, Memory& memory);
/// Two tensors of the low-rank gradient's shape.
std::unique_ptr<Moments> make_subspace_moments(const MomentsOptions& options, const Parameter& p, Memory& memory);

}  // namespace llmz::optim
