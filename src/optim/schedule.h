#pragma once

#include <vector>

#include "llmz/config/fields.h"
#include "llmz/optim/config.h"

namespace llmz::optim {

constexpr double kMaxSteps = 1e12;  // above what any machine trains

/// Where a run stands in its schedule, in whole steps.
struct Course {
  int64_t step = 0;    ///< after the peak
  int64_t warmup = 0;  ///< the step at the peak
  int64_t steps = 1;   ///< of the run

  int64_t last() const { return steps - 1; }
  /// A length given in steps (≥ 1) or as a fraction of the run (< 1).
  int64_t length(float given) const;
  /// How much of the way from step `from` to the last one is done, 0 to 1; 0 before it, 1 after the run.
  double done_since(int64_t from) const;
};

/// One registry row: a course of the learning rate after the warm-up.
struct ScheduleRow {
  const char* name;
  const char* meaning;  ///< where the name does not say it; else null
  /// The rate at course.step, as a fraction of the peak.
  double (*factor)(const ScheduleConfig& config, const Course& course);
  /// Its settings: members of ScheduleConfig, or a struct of its own in ScheduleConfig::own; null: none but everyone's.
  config::Fields<ScheduleConfig> (*fields)() = nullptr;
};

/// Every schedule, in the order of the documentation.
const std::vector<ScheduleRow>& schedule_rows();

}  // namespace llmz::optim
