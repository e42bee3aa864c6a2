#pragma once

#include <cmath>

namespace llmz {

/// One step's scalars of Adam and its kin, made in double and rounded once. `Args` has lr, beta1, beta2, eps,
/// weight_decay and step. The gradient's scale, which only the device knows, is set beside them.
template <class Real>
struct AdamScalars {
  Real keep;  ///< 1 − lr·weight_decay
  Real beta1, beta1_rest, beta2, beta2_rest;
  Real step_size;         ///< lr/(1 − β₁^step)
  Real first_correction;  ///< 1/(1 − β₁^step)
  Real root_correction;   ///< √(1 − β₂^step)
  Real eps;
  Real grad_scale = 1;

  template <class Args>
  explicit AdamScalars(const Args& a)
      : keep(static_cast<Real>(1.0 - static_cast<double>(a.lr) * static_cast<double>(a.weight_decay))),
        beta1(static_cast<Real>(a.beta1)),
        beta1_rest(static_cast<Real>(1.0 - static_cast<double>(a.beta1))),
        beta2(static_cast<Real>(a.beta2)),
        beta2_rest(static_cast<Real>(1.0 - static_cast<double>(a.beta2))),
        eps(static_cast<Real>(a.eps)) {
    const auto step = static_cast<double>(a.step);
    const double correction = 1.0 - std::pow(static_cast<double>(a.beta1), step);
    step_size = static_cast<Real>(static_cast<double>(a.lr) / correction);
    first_correction = static_cast<Real>(1.0 / correction);
    root_correction = static_cast<Real>(std::sqrt(1.0 - std::pow(static_cast<double>(a.beta2), step)));
  }
};

}  // namespace llmz
