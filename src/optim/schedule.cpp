#include "src/optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "llmz/core/error.h"

namespace llmz::optim {
namespace {

double cosine(const ScheduleConfig& config, const Course& course) {
  const auto floor = static_cast<double>(config.final_fraction);
  const double t = course.done_since(course.warmup);
  return floor + (1.0 - floor) * 0.5 * (1.0 + std::cos(std::numbers::pi * t));
}

/// From the peak at step `from` to the floor at the last one.
double straight(const ScheduleConfig& config, const Course& course, int64_t from) {
  return 1.0 - (1.0 - static_cast<double>(config.final_fraction)) * course.done_since(from);
}

double linear(const ScheduleConfig& config, const Course& course) { return straight(config, course, course.warmup); }

double constant(const ScheduleConfig&, const Course&) { return 1.0; }

double stable_then_decay(const ScheduleConfig& config, const Course& course) {
  return straight(config, course, std::max(course.warmup, course.last() - course.length(config.decay)));
}

config::Fields<ScheduleConfig> decay_fields() {
  return config::Fields<ScheduleConfig>().key(
      "decay", &ScheduleConfig::decay,
      "wsd: length of the decay at the end: steps when at least 1, else a fraction of all steps",
      config::between(0, kMaxSteps));
}

const ScheduleRow& row_of(const std::string& name) {
  std::vector<std::string> known;
  for (const ScheduleRow& row : schedule_rows()) {
    if (name == row.name) return row;
    known.emplace_back(row.name);
  }
  fail("schedule.kind \"{}\" is unknown; known: {}", name, fmt::join(known, ", "));
}

}  // namespace

const std::vector<ScheduleRow>& schedule_rows() {
  static const std::vector<ScheduleRow> rows = {
      {"cosine", nullptr, cosine},
      {"linear", nullptr, linear},
      {"constant", nullptr, constant},
      {"wsd", "warm-up, stable, linear decay", stable_then_decay, decay_fields}};
  return rows;
}

int64_t Course::length(float given) const {
  const double value = static_cast<double>(given);
  return static_cast<int64_t>(std::llround(value >= 1 ? value : value * static_cast<double>(steps)));
}

double Course::done_since(int64_t from) const {
  if (step <= from) return 0.0;
  if (last() <= from) return 1.0;
  return static_cast<double>(std::min(step, last()) - from) / static_cast<double>(last() - from);
}

int64_t warmup_steps(const ScheduleConfig& config, int64_t steps) {
  return Course{.steps = steps}.length(config.warmup);
}

double schedule_factor(const ScheduleConfig& config, int64_t step, int64_t steps) {
  check(steps >= 1 && step >= 0, "learning-rate schedule asked for step {} of {}", step, steps);
  const ScheduleRow& row = row_of(config.kind);
  const int64_t warmup = warmup_steps(config, steps);
  if (step < warmup) return static_cast<double>(step + 1) / static_cast<double>(warmup + 1);
  if (step == warmup) return 1.0;
  return row.factor(config, {.step = step, .warmup = warmup, .steps = steps});
}

}  // namespace llmz::optim
