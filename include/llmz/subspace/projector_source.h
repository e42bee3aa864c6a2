#pragma once

#include <string>
#include <vector>

#include "llmz/core/exec.h"
#include "llmz/core/projector.h"
#include "llmz/subspace/clock.h"
#include "llmz/subspace/config.h"

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

/// A projector that follows the clock: seeds change with time, bases are made again at refreshes from the tensor that
/// is sketched (principal part) or from Philox (Haar part).
class ProjectorSource {
 public:
  ProjectorSource(const ProjectorConfig& config, const std::string& name, int64_t width, DType dtype, uint32_t layer,
                  const Clock* clock, Memory& memory);
  ProjectorSource(const ProjectorSource&) = delete;  // gradients hold a pointer to the projector
  ProjectorSource& operator=(const ProjectorSource&) = delete;

  const Projector& projector() const { return projector_; }
  void advance();
  std::vector<int64_t> periods() const;
  /// Whether the projector has stored bases.
  bool observes() const { return projector_.principal.present() || projector_.random_basis.present(); }
  void observe(Exec& exec, Tensor x);
  std::vector<State> states() const;
  std::vector<Spectrum> spectra() const;

 private:
  uint64_t seed_of_period(int64_t period) const;
  bool principal_due() const;
  bool random_due() const;
  void start(Exec& exec);
  void find_principal(Exec& exec, Tensor x);
  void subspace_iteration(Exec& exec, Tensor x);

  ProjectorConfig config_;
  std::string name_;
  DType basis_dtype_;
  const Clock* clock_;
  Projector projector_;
  Spectrum spectrum_;
};

}  // namespace llmz::subspace
