#include "llmz/config/schema.h"

#include <algorithm>

#include "llmz/core/error.h"
#include "llmz/core/nearest.h"
#include "src/config/values.h"

namespace llmz::config {
namespace {

std::string last_part(const std::string& path) { return path.substr(path.rfind('.') + 1); }

/// Distance between two keys: as they stand, or by their last parts where the right name stands in the wrong object.
size_t key_distance(const std::string& a, const std::string& b) {
  return std::min(edit_distance(a, b), edit_distance(last_part(a), last_part(b)) + 2);
}

/// In quotes, line ends and the like escaped, so that an error stays one line.
std::string quoted(const std::string& text) { return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace); }

}  // namespace

std::string nearest(const std::string& name, const std::vector<std::string>& known) {
  const auto closer = [&](const std::string& a, const std::string& b) {
    return key_distance(name, a) < key_distance(name, b);
  };
  const auto best = std::min_element(known.begin(), known.end(), closer);
  return best == known.end() ? std::string() : *best;
}

std::string unknown_among(const std::string& path, const std::vector<std::string>& known,
                          const std::vector<std::string>& siblings) {
  std::string text = fmt::format("unknown key {}; did you mean \"{}\"?", quoted(path), nearest(path, known));
  if (!siblings.empty()) {
    text += fmt::format(" Keys of \"{}\": {}", path.substr(0, path.rfind('.')), fmt::join(siblings, ", "));
  }
  return text;
}

const Field* Schema::find(const std::string& path) const {
  const auto row = std::find_if(fields_.begin(), fields_.end(), [&](const Field& field) { return field.path == path; });
  return row == fields_.end() ? nullptr : &*row;
}

bool Schema::is_special(const std::string& path) const {
  return std::find(special_.begin(), special_.end(), path) != special_.end();
}

bool Schema::is_object(const std::string& path) const {
  return std::any_of(fields_.begin(), fields_.end(),
                     [&](const Field& field) { return field.path.starts_with(path + "."); });
}

std::string Schema::unknown_key(const std::string& path) const {
  std::vector<std::string> known = special_;
  for (const Section& section : sections_) known.push_back(section.name);
  for (const Field& field : fields_) {
    known.push_back(field.path);
    const std::string parent = field.path.substr(0, field.path.rfind('.'));
    if (std::find(known.begin(), known.end(), parent) == known.end()) known.push_back(parent);
  }
  std::vector<std::string> siblings;
  const size_t dot = path.rfind('.');
  const std::string object = path.substr(0, dot == std::string::npos ? 0 : dot) + ".";
  for (const Field& field : fields_) {
    if (field.path.starts_with(object)) siblings.push_back(field.path.substr(object.size()));
  }
  return unknown_among(path, known, siblings);
}

}  // namespace llmz::config
