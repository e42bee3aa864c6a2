#include <algorithm>
#include <cmath>
#include <numbers>

#include "llmz/core/error.h"
#include "llmz/optim/config.h"

namespace llmz::optim {
namespace {

/// From the peak (t = 0) to the floor (t = 1), as fractions of the peak.
using Descent = double (*)(double t, double floor);

double cosine(double t, double floor) { return floor + (1.0 - floor) * 0.5 * (1.0 + std::cos(std::numbers::pi * t)); }
double linear(double t, double floor) { return 1.0 - (1.0 - floor) * t; }
double constant(double, double) { return 1.0; }

struct Kind {
  const char* name;
  Descent descent;
  bool at_the_end;  ///< the descent takes the last `decay` steps, not all that follow the warm-up
};

constexpr Kind kKinds[] = {
    {"cosine", cosine, false}, {"linear", linear, false}, {"constant", constant, false}, {"wsd", linear, true}};

/// A length given in steps (≥ 1) or as a fraction of the run (< 1).
int64_t length_in_steps(float length, int64_t steps) {
  const double value = static_cast<double>(length);
  return static_cast<int64_t>(std::llround(value >= 1 ? value : value * static_cast<double>(steps)));
}

const Kind& find_kind(const std::string& name) {
  for (const Kind& kind : kKinds) {
    if (name == kind.name) return kind;
  }
  fail("schedule.kind \"{}\" is unknown; known: {}", name, fmt::join(schedule_kinds(), ", "));
}

}  // namespace

std::vector<std::string> schedule_kinds() {
  std::vector<std::string> names;
  for (const Kind& kind : kKinds) names.emplace_back(kind.name);
  return names;
}

int64_t warmup_steps(const ScheduleConfig& config, int64_t steps) { return length_in_steps(config.warmup, steps); }

double schedule_factor(const ScheduleConfig& config, int64_t step, int64_t steps) {
  check(steps >= 1 && step >= 0, "learning-rate schedule asked for step {} of {}", step, steps);
  const Kind& kind = find_kind(config.kind);
  const int64_t warmup = warmup_steps(config, steps);
  if (step < warmup) return static_cast<double>(step + 1) / static_cast<double>(warmup + 1);

  const int64_t last = steps - 1;
  const int64_t peak = kind.at_the_end ? std::max(warmup, last - length_in_steps(config.decay, steps)) : warmup;
  if (step <= peak) return 1.0;
  const double t = static_cast<double>(std::min(step, last) - peak) / static_cast<double>(last - peak);
  return kind.descent(t, static_cast<double>(config.final_fraction));
}

}  // namespace llmz::optim
