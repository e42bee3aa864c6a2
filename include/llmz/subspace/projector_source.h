#pragma once

#include <string>
#include <vector>

#include "llmz/core/exec.h"
#include "llmz/core/projector.h"
#include "llmz/subspace/clock.h"
#include "llmz/subspace/config.h"
#include "llmz/subspace/refresh.h"
#include "llmz/subspace/streams.h"

namespace llmz::subspace {

/// A projector that follows the clock: seeds change with time, bases are made again at refreshes from the tensor that
/// is sketched (principal part) or from Philox (Haar part).
class ProjectorSource final : public Refresh {
 public:
  ProjectorSource(const ProjectorConfig& config, const std::string& name, int64_t width, DType dtype, StreamId stream,
                  const Clock* clock, Memory& memory);
  ProjectorSource(const ProjectorSource&) = delete;  // gradients hold a pointer to the projector
  ProjectorSource& operator=(const ProjectorSource&) = delete;

  const Projector& projector() const { return projector_; }
  void advance() override;
  std::vector<int64_t> periods() const override;
  /// Whether the projector has stored bases.
  bool observes() const override { return projector_.principal.present() || projector_.random_basis.present(); }
  void observe(Exec& exec, Tensor x) override;
  std::vector<State> states() const override;
  std::vector<Spectrum> spectra() const override;

 private:
  uint64_t seed_of_period(int64_t period) const;
  bool principal_due() const;
  bool random_due() const;
  void start(Exec& exec);
  void find_principal(Exec& exec, Tensor x);
  void subspace_iteration(Exec& exec, Tensor x);

  ProjectorConfig config_;
  std::string name_;
  uint32_t number_;
  DType basis_dtype_;
  const Clock* clock_;
  Projector projector_;
  Spectrum spectrum_;
};

}  // namespace llmz::subspace
