#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace llmz::config {

/// Objects keep the order of their keys.
using Json = nlohmann::ordered_json;

/// JSON text as a tree that remembers where each key stood.
struct Text {
  Json root;
  std::string source;                    ///< what errors call it: a file, or "--set train.steps=10"
  std::map<std::string, int64_t> lines;  ///< dotted path of a key -> its line, from 1; "a.b[1].c" within a list

  /// "run.json:12" where the line of `path` is known, else "run.json".
  std::string where(const std::string& path) const;
};

/// Parses JSON in which // and /* */ comments may stand. `prefix` goes before all paths ("model" for a model's own
/// file). Throws Error with source, line and column for text that is not JSON, and with both lines for a key that
/// stands twice in one object.
Text parse_text(std::string_view text, const std::string& source, const std::string& prefix = "");

/// The same from a file.
Text read_text(const std::string& path, const std::string& prefix = "");

/// "a" and "b" give "a.b"; an empty `prefix` gives `name`.
std::string join_path(const std::string& prefix, const std::string& name);

}  // namespace llmz::config
