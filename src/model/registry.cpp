#include "src/model/architecture.h"

namespace llmz::model {

Architecture llama();
Architecture gpt2();

const std::vector<Architecture>& registry() {
  static const std::vector<Architecture> rows = {llama(), gpt2()};
  return rows;
}

const Architecture& find_architecture(const std::string& name) {
  std::vector<std::string> known;
  for (const Architecture& row : registry()) {
    if (name == row.name) return row;
    known.push_back(fmt::format("{} ({})", row.name, row.meaning));
  }
  fail("model.architecture \"{}\" is unknown; known: {}", name, fmt::join(known, ", "));
}

std::vector<std::string> architectures() {
  std::vector<std::string> names;
  for (const Architecture& row : registry()) names.emplace_back(row.name);
  return names;
}

bool has_gate(const ModelConfig& config) {
  const Recipe recipe = find_architecture(config.architecture).recipe(config);
  return !recipe.blocks.empty() && recipe.blocks.front().mlp.kind == nn::MlpKind::swiglu;
}

std::unique_ptr<Model> make_model(const ModelConfig& config, const BuildOptions& options, Memory& memory) {
  validate(config);
  return assemble(config, options, memory, find_architecture(config.architecture).recipe(config));
}

}  // namespace llmz::model
