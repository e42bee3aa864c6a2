#include "llmz/config/fields.h"

#include <cmath>

namespace llmz::config {
namespace {

/// Whole numbers in full up to ten digits; beyond, and for others, as short as they can be.
std::string number_text(double x) {
  if (x == std::floor(x) && std::abs(x) < 1e10) return fmt::format("{:.0f}", x);
  return fmt::format("{}", x);
}

std::string joined(const std::string& prefix, const std::string& path) {
  return prefix.empty() ? path : prefix + "." + path;
}

}  // namespace

bool Range::contains(double x) const {
  return (above_low ? x > low : x >= low) && (below_high ? x < high : x <= high);  // false for NaN
}

std::string Range::text() const {
  const bool has_low = std::isfinite(low), has_high = std::isfinite(high);
  if (has_low && has_high && !above_low && !below_high) {
    return fmt::format("{} to {}", number_text(low), number_text(high));
  }
  std::string text;
  if (has_low) text += (above_low ? "above " : "at least ") + number_text(low);
  if (has_low && has_high) text += " and ";
  if (has_high) text += (below_high ? "below " : "at most ") + number_text(high);
  return text;
}

Allowed at_least(double low) { return {.range = {.low = low}}; }
Allowed above(double low) { return {.range = {.low = low, .above_low = true}}; }
Allowed between(double low, double high) { return {.range = {.low = low, .high = high}}; }
Allowed from_below(double low, double high) { return {.range = {.low = low, .high = high, .below_high = true}}; }
Allowed one_of(std::vector<std::string> choices) { return {.choices = std::move(choices)}; }

Field Field::within(const std::string& prefix, const std::string& named, std::function<void*(void*)> inner) const {
  Field field = *this;
  field.path = joined(prefix, path);
  if (!family.empty() || !named.empty()) {
    field.family = joined(named.empty() ? prefix : named, family.empty() ? path : family);
  }
  field.slot = [inner = std::move(inner), own = slot](void* object) { return own(inner(object)); };
  return field;
}

}  // namespace llmz::config
