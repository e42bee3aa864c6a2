#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace llmz {

/// A JSON file of configs/ as it was when this program was built.
struct BuiltinFile {
  std::string_view name;  ///< "llama-60m": the file's, without folder and ending
  std::string_view text;
};

/// configs/models/: shapes of models, which "model": "llama-60m" names.
std::span<const BuiltinFile> builtin_models();
/// configs/: whole runs, which `llmz train llama-60m-c4` names.
std::span<const BuiltinFile> builtin_configs();

/// The file of that name, or nullptr.
const BuiltinFile* find_builtin(std::span<const BuiltinFile> files, std::string_view name);
/// Their names, in their order.
std::vector<std::string> builtin_names(std::span<const BuiltinFile> files);

}  // namespace llmz
