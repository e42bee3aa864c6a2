#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "llmz/core/exec.h"

namespace llmz::subspace {

/// A tensor that outlives a step: a projector's basis. `name` is unique in a model.
struct State {
  std::string name;
  Tensor tensor;
  int owner = 0;         ///< the rank that makes it at a refresh
  bool renewed = false;  ///< by the refresh of the step in progress
};

/// What a refresh saw of a tensor: eigenvalues of XᵀX, the leading ones. Present for principal parts.
struct Spectrum {
  std::string name;
  Tensor values;  ///< [r₁] descending; by subspace iteration the basis' Rayleigh quotients, nearly so
  Tensor total;   ///< [1] ‖X‖²_F, the sum of all
  int owner = 0;  ///< the rank that saw it
};

/// What changes with the steps of a run, and how.
class Refresh {
 public:
  virtual ~Refresh() = default;

  /// Start of an optimizer step: it follows the clock.
  virtual void advance() = 0;
  /// Periods, in steps, after which something changes.
  virtual std::vector<int64_t> periods() const = 0;
  /// Whether refreshes need to run a forward pass that calls `observe`, with those of `periods()` that are due.
  virtual bool observes() const = 0;
  /// x [T,n] of the batch that a due refresh may look at.
  virtual void observe(Exec& exec, Tensor x) = 0;
  /// What a checkpoint has to hold.
  virtual std::vector<State> states() const = 0;
  virtual std::vector<Spectrum> spectra() const = 0;
};

}  // namespace llmz::subspace
