#pragma once

#include "llmz/config/fields.h"
#include "llmz/ops/update.h"
#include "llmz/optim/config.h"

namespace llmz::optim {

/// Settings of rules that are Adam in some form; their defaults are the optimizer's.
struct AdamSettings {
  float beta1 = OptimizerConfig{}.beta1, beta2 = OptimizerConfig{}.beta2, eps = OptimizerConfig{}.eps;

  ops::AdamConstants constants() const { return {beta1, beta2, eps}; }
};

inline AdamSettings adam_settings_of(const OptimizerConfig& c) { return {c.beta1, c.beta2, c.eps}; }

inline config::Fields<AdamSettings> adam_fields() {
  using A = AdamSettings;
  return config::Fields<A>()
      .key("beta1", &A::beta1, "decay of the first moment", config::from_below(0, 1))
      .key("beta2", &A::beta2, "decay of the second moment", config::from_below(0, 1))
      .key("eps", &A::eps, "added to the root of the second moment", config::above(0));
}

/// Of moments in a subspace.
inline config::Fields<SubspaceConfig> subspace_fields() {
  using S = SubspaceConfig;
  return config::Fields<S>()
      .key("alpha", &S::alpha, "factor on updates that come back from the subspace", config::at_least(0))
      .key("at_refresh", &S::at_refresh, "what becomes of subspace moments when the projector changes",
           refresh_policies());
}

}  // namespace llmz::optim
