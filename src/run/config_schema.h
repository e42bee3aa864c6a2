#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <variant>
#include <vector>

#include "llmz/run/config.h"

namespace llmz::train {

/// The member of a RunConfig that a key stands for.
using Slot = std::variant<bool*, int64_t*, uint64_t*, float*, std::string*, std::vector<std::string>*>;

/// Numbers that a key accepts.
struct Range {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool above_low = false;   ///< `low` itself is not accepted
  bool below_high = false;  ///< `high` itself is not accepted

  bool contains(double x) const;
  /// "1 to 64", "at least 0", "above 0 and below 1"; empty when anything goes.
  std::string text() const;
};

/// One JSON key. All there is to know about it stands here once: parsing, printing, overrides, errors and
/// docs/config.md are made from it, and its default is the member's own.
struct Key {
  std::string path;  ///< "train.steps"
  std::function<Slot(RunConfig&)> slot;
  std::string meaning;
  Range range = {};
  std::vector<std::string> choices = {};
  /// Where several sections hold the same key: how the documentation writes them all, "activations.<role>.rank". Such
  /// keys are printed only where they differ from their default.
  std::string family = {};

  std::string section() const { return path.substr(0, path.find('.')); }
};

/// One object of the top level.
struct Section {
  std::string name;
  std::string meaning;
};

/// Every key, section by section, in the order of `sections`.
const std::vector<Key>& schema();
const std::vector<Section>& sections();

/// The row of `path`, or nullptr.
const Key* find_key(const std::string& path);
/// Whether `path` is an object that holds keys: "train", "optimizer.lr_scale".
bool is_section(const std::string& path);

/// "unknown key "train.stpes"; did you mean "train.steps"?" for a path that is neither.
std::string unknown_key(const std::string& path);
/// The name among `known` that is nearest to `name` by edit distance.
std::string nearest(const std::string& name, const std::vector<std::string>& known);

/// "whole number", "text", …
std::string type_name(const Slot& slot);
/// What the key accepts beside its type: its choices or its range; empty when anything goes.
std::string allowed(const Key& key);

}  // namespace llmz::train
