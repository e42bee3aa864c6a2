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

/// Where AdamW's moments live: in the weight's shape, the second one as a row and a column, or in the shape of low-rank
/// gradients. A rule's row says which it stands for (RuleRow::moments).
enum class Moments : uint8_t { full, factored, subspace };
const config::Names<Moments>& moment_kinds();

/// What becomes of subspace moments when the projector changes.
enum class AtRefresh : uint8_t { keep, reset, rotate };
const config::Names<AtRefresh>& refresh_policies();

/// What a bf16 weight does about updates smaller than its spacing.
enum class Bf16Weights : uint8_t {
  master,      ///< an fp32 copy is updated
  stochastic,  ///< rounded up or down at random
  nearest      ///< they are lost
};
const config::Names<Bf16Weights>& bf16_weights();

/// Moments that live in the subspace of a low-rank gradient's projector (CompAct).
struct SubspaceConfig {
  float alpha = 0.25f;  ///< factor on the projected-back update
  AtRefresh at_refresh = AtRefresh::keep;
};

/// Which parameters decoupled weight decay touches besides the matrices of blocks and head.
struct DecayOn {
  bool norms = false, biases = false, embedding = false;
};

/// How the optimizer's numbers are stored; filled in from JSON `precision`.
struct StatePrecision {
  bool bf16_moments = false;  ///< else fp32 (f64 in an f64 model)
  Bf16Weights weights = Bf16Weights::master;
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
  Moments moments = Moments::full;
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

/// Throws Error naming the keys whose values do not go together.
void validate(const OptimizerConfig& config);

/// JSON `schedule`: linear warm-up to the peak, then `kind` down to final_fraction·lr.
struct ScheduleConfig {
  std::string kind = "cosine";  ///< a name of the schedule registry
  float warmup = 0.1f;          ///< steps when ≥ 1, else a fraction of all steps
  float final_fraction = 0.1f;  ///< floor, as a fraction of the peak
  float decay = 0.2f;           ///< wsd: steps when ≥ 1, else a fraction, at the end
  config::Bag own = {};         ///< settings of schedules that take others than these
};

/// Warm-up of a run of `steps` steps, in whole steps.
int64_t warmup_steps(const ScheduleConfig& config, int64_t steps);

/// Learning rate of step `step` (0-based) of `steps`, as a fraction of the peak. With w = warmup_steps: (step+1)/(w+1)
/// during the warm-up, so that no step has rate 0, 1 at step w, final_fraction at the last step and ever after.
/// Throws Error for an unknown kind, steps < 1 or step < 0.
double schedule_factor(const ScheduleConfig& config, int64_t step, int64_t steps);

}  // namespace llmz::optim
