#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "llmz/config/fields.h"

namespace llmz::optim {

/// Learning-rate factors by parameter group, on top of the schedule.
struct LrScale {
  float blocks = 1, embedding = 1, head = 1, norms = 1;
  float attention_output = 1;  ///< of the output projections, beside `blocks`
};

/// Moments that live in the subspace of a low-rank gradient's projector (CompAct).
struct SubspaceConfig {
  float alpha = 0.25f;              ///< factor on the projected-back update
  std::string at_refresh = "keep";  ///< what becomes of them when the projector changes: keep | reset | rotate
};

/// Which parameters decoupled weight decay touches besides the matrices of blocks and head.
struct DecayOn {
  bool norms = false, biases = false, embedding = false;
};

/// How the optimizer's numbers are stored; filled in from JSON `precision`.
struct StatePrecision {
  bool bf16_moments = false;  ///< else fp32 (f64 in an f64 model)
  /// What a bf16 weight does about updates smaller than its spacing: `master` (an fp32 copy is updated), `stochastic`
  /// (rounded up or down at random), `nearest` (they are lost).
  std::string weights = "master";
  uint64_t seed = 1;  ///< of stochastic rounding
};

/// What every entry of JSON `optimizer.rules` may say beside its rule's own settings.
struct RulePlace {
  std::string where = "all";  ///< the parameters that the rule updates, as far as it can: optim::is_in
  float lr_scale = 1;         ///< on top of those by group
  float decay_scale = 1;      ///< on weight_decay, where parameters decay
};

/// JSON `optimizer`.
struct OptimizerConfig {
  std::string name = "adamw";
  std::string moments = "full";    ///< full | factored | subspace
  int64_t first_moment_bits = 32;  ///< 32, or 8 with factored moments
  SubspaceConfig subspace;
  float lr = 1e-3f;  ///< peak learning rate
  float beta1 = 0.9f, beta2 = 0.95f, eps = 1e-8f;
  float weight_decay = 0.1f;
  float clip_norm = 1.0f;  ///< global gradient norm; 0 = no clipping
  LrScale lr_scale;
  DecayOn decay_on;
  /// Each names a rule, with its settings and a RulePlace. The first match wins; what they leave goes to `name`.
  std::vector<config::Choice> rules;
};

std::vector<std::string> moment_kinds();
std::vector<std::string> refresh_policies();

/// Throws Error naming the keys whose values do not go together.
void validate(const OptimizerConfig& config);

/// JSON `schedule`: linear warm-up to the peak, then `kind` down to final_fraction·lr.
struct ScheduleConfig {
  std::string kind = "cosine";  ///< cosine | linear | constant | wsd (warm-up, stable, decay)
  float warmup = 0.1f;          ///< steps when ≥ 1, else a fraction of all steps
  float final_fraction = 0.1f;  ///< floor, as a fraction of the peak
  float decay = 0.2f;           ///< wsd: steps when ≥ 1, else a fraction, at the end
};

/// Every known `kind`.
std::vector<std::string> schedule_kinds();

/// Warm-up of a run of `steps` steps, in whole steps.
int64_t warmup_steps(const ScheduleConfig& config, int64_t steps);

/// Learning rate of step `step` (0-based) of `steps`, as a fraction of the peak. With w = warmup_steps: (step+1)/(w+1)
/// during the warm-up, so that no step has rate 0, 1 at step w, final_fraction at the last step and ever after.
/// Throws Error for an unknown kind, steps < 1 or step < 0.
double schedule_factor(const ScheduleConfig& config, int64_t step, int64_t steps);

}  // namespace llmz::optim
