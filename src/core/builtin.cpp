#include "llmz/core/builtin.h"

#include <algorithm>

namespace llmz {

const BuiltinFile* find_builtin(std::span<const BuiltinFile> files, std::string_view name) {
  const auto found = std::find_if(files.begin(), files.end(), [&](const BuiltinFile& f) { return f.name == name; });
  return found == files.end() ? nullptr : &*found;
}

std::vector<std::string> builtin_names(std::span<const BuiltinFile> files) {
  std::vector<std::string> names;
  for (const BuiltinFile& file : files) names.emplace_back(file.name);
  return names;
}

}  // namespace llmz
