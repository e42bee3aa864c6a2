#pragma once

#include <string>
#include <vector>

#include "llmz/run/config.h"

namespace llmz::run {

/// What a paper counts of the inputs of linear layers, in numbers a token and layer.
struct PaperCount {
  double numbers = 0;  ///< 0: the method is in neither paper
  std::string formula;
};

/// A named method: what is stored, how weight gradients are made, where moments live. Its JSON is what a user could
/// have written into a configuration.
struct Preset {
  std::string name;
  std::string meaning;
  std::string json;
  PaperCount (*paper)(const model::ModelConfig& config) = nullptr;  ///< null: in neither paper
};

/// In the order of the documentation.
const std::vector<Preset>& presets();
const Preset* find_preset(const std::string& name);
std::vector<std::string> preset_names();

/// `config` with the method of the preset `name` in the place of its own. Error for an unknown name, or where the
/// result is impossible for the model.
RunConfig with_preset(RunConfig config, const std::string& name);

/// Sets the keys that presets decide back to their defaults.
void reset_method(RunConfig& config);

/// A name for a whole `precision` section.
struct PrecisionSet {
  const char* name;
  const char* meaning;
  PrecisionConfig config;
};
const std::vector<PrecisionSet>& precision_sets();

}  // namespace llmz::run
