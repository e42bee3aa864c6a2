#include "src/run/resume.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "llmz/core/error.h"
#include "llmz/run/config_io.h"

namespace llmz::run {
namespace {

constexpr std::string_view kFixed[] = {
    "model.",     "optimizer.name", "optimizer.moments", "optimizer.first_moment_bits",
    "train.seed", "train.sequence", "train.global_batch"};

/// {"train.steps": 100, ...}: every key of the configuration, lists whole.
void flatten(const nlohmann::json& object, const std::string& prefix, nlohmann::json& keys) {
  for (const auto& [name, value] : object.items()) {
    if (value.is_object()) {
      flatten(value, prefix + name + ".", keys);
    } else {
      keys[prefix + name] = value;
    }
  }
}

nlohmann::json flat(const RunConfig& config) {
  nlohmann::json keys = nlohmann::json::object();
  flatten(nlohmann::json::parse(to_json(config)), "", keys);
  return keys;
}

}  // namespace

std::vector<std::string> changes_since(const RunConfig& saved, const RunConfig& now) {
  const nlohmann::json before = flat(saved), after = flat(now);
  std::vector<std::string> changes;
  for (const auto& [key, value] : after.items()) {
    const nlohmann::json& old = before.at(key);  // both hold every key
    if (old == value) continue;
    const auto decides = [&, name = std::string_view(key)](std::string_view fixed) { return name.starts_with(fixed); };
    check(
        std::none_of(std::begin(kFixed), std::end(kFixed), decides),
        "{} was {} when this run was saved and is {} now: --resume would continue another run. Set it back, or choose "
        "another output.path",
        key, old.dump(), value.dump());
    changes.push_back(fmt::format("{}: {} -> {}", key, old.dump(), value.dump()));
  }
  return changes;
}

}  // namespace llmz::run
