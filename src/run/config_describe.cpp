// The schema in words: for error messages and for docs/config.md.
#include <algorithm>
#include <cmath>

#include <spdlog/fmt/fmt.h>

#include "config_schema.h"
#include "config_text.h"
#include "llmz/core/nearest.h"

namespace llmz::train {
namespace {

std::string last_part(const std::string& path) { return path.substr(path.rfind('.') + 1); }

/// Distance between two keys: as they stand, or by their last parts where the right name stands in the wrong object.
size_t key_distance(const std::string& a, const std::string& b) {
  return std::min(edit_distance(a, b), edit_distance(last_part(a), last_part(b)) + 2);
}

/// Whole numbers in full up to ten digits; beyond, and for others, as short as they can be.
std::string number_text(double x) {
  if (x == std::floor(x) && std::abs(x) < 1e10) return fmt::format("{:.0f}", x);
  return fmt::format("{}", x);
}

/// In quotes, line ends and the like escaped, so that an error stays one line.
std::string quoted(const std::string& text) { return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace); }

/// Keys and the objects that hold them.
std::vector<std::string> known_paths() {
  std::vector<std::string> paths = {"model.base", "preset"};
  for (const Section& section : sections()) paths.push_back(section.name);
  for (const Key& key : schema()) {
    paths.push_back(key.path);
    const std::string parent = key.path.substr(0, key.path.rfind('.'));
    if (std::find(paths.begin(), paths.end(), parent) == paths.end()) paths.push_back(parent);
  }
  return paths;
}

std::vector<std::string> keys_of(const std::string& section) {
  std::vector<std::string> names;
  for (const Key& key : schema()) {
    if (key.path.starts_with(section + ".")) names.push_back(key.path.substr(section.size() + 1));
  }
  return names;
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

std::string type_name(const Slot& slot) {
  struct Name {
    const char* operator()(bool*) const { return "true or false"; }
    const char* operator()(int64_t*) const { return "whole number"; }
    const char* operator()(uint64_t*) const { return "whole number"; }
    const char* operator()(float*) const { return "number"; }
    const char* operator()(std::string*) const { return "text"; }
    const char* operator()(std::vector<std::string>*) const { return "list of texts"; }
  };
  return std::visit(Name{}, slot);
}

std::string allowed(const Key& key) {
  return key.choices.empty() ? key.range.text() : fmt::format("{}", fmt::join(key.choices, ", "));
}

std::string nearest(const std::string& name, const std::vector<std::string>& known) {
  const auto closer = [&](const std::string& a, const std::string& b) {
    return key_distance(name, a) < key_distance(name, b);
  };
  const auto best = std::min_element(known.begin(), known.end(), closer);
  return best == known.end() ? std::string() : *best;
}

std::string unknown_key(const std::string& path) {
  std::string text = fmt::format("unknown key {}; did you mean \"{}\"?", quoted(path), nearest(path, known_paths()));
  const size_t dot = path.rfind('.');
  const std::vector<std::string> siblings = keys_of(path.substr(0, dot == std::string::npos ? 0 : dot));
  if (!siblings.empty()) text += fmt::format(" Keys of \"{}\": {}", path.substr(0, dot), fmt::join(siblings, ", "));
  return text;
}

}  // namespace llmz::train
