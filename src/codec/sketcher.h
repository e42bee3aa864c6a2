#pragma once

#include "llmz/codec/codec.h"

namespace llmz::codec {

/// A projector that follows the clock: seeds change with time, bases are made again at refreshes from the tensor that
/// is sketched (principal part) or from Philox (Haar part).
class Sketcher {
 public:
  Sketcher(const ProjectorConfig& config, const std::string& name, int64_t width, DType dtype, uint32_t layer,
           const Clock* clock, Memory& memory);
  Sketcher(const Sketcher&) = delete;  // gradients hold a pointer to the projector
  Sketcher& operator=(const Sketcher&) = delete;

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

}  // namespace llmz::codec
