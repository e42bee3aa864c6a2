#pragma once

#include <vector>

#include "llmz/config/fields.h"
#include "src/model/hf_reader.h"
#include "src/model/recipe.h"

namespace llmz::model {

/// One row of the registry: everything about an architecture, from its own file.
struct Architecture {
  const char* name;     ///< JSON `model.architecture`
  const char* title;    ///< as people write it
  const char* meaning;  ///< in a few words, for whoever looks for a name
  const char* hf_type;  ///< Hugging Face's `model_type`
  /// The keys of ModelConfig that it takes beside those that every architecture has; any other must be left out.
  std::vector<std::string> keys;
  /// Settings that no other architecture has, a struct of its own in ModelConfig::own.
  config::Fields<ModelConfig> fields = {};
  /// Throws Error for a shape that only this architecture finds impossible; null: none.
  void (*check)(const ModelConfig&);
  Recipe (*recipe)(const ModelConfig&);
  /// Hugging Face's config.json: the keys that say the shape, and back. Whatever it may say that llmz does not compute
  /// throws Error (HfReader::only).
  Json (*to_hf)(const ModelConfig&);
  ModelConfig (*from_hf)(const HfReader&);
};

/// Every row. A new architecture is a file with a function that returns one, whose name stands in registry.cpp.
const std::vector<Architecture>& registry();
/// Throws Error listing the known ones.
const Architecture& find_architecture(const std::string& name);

}  // namespace llmz::model
