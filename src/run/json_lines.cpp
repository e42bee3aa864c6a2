#include "src/run/json_lines.h"

#include <nlohmann/json.hpp>

#include "llmz/core/error.h"
#include "llmz/io/files.h"

namespace llmz::run {
namespace {

/// The lines of `file` that belong to steps up to `last_step`; a line that does not parse ends the file.
std::string lines_until(const std::filesystem::path& file, int64_t last_step) {
  std::ifstream in(file);
  std::string kept, line;
  while (std::getline(in, line)) {
    const auto entry = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (entry.is_discarded() || !entry.contains("step") || !entry["step"].is_number_integer()) break;
    if (entry["step"].get<int64_t>() <= last_step) kept += line + "\n";
  }
  return kept;
}

}  // namespace

JsonLines::JsonLines(const std::filesystem::path& file, int64_t last_step) : path_(file) {
  if (std::filesystem::exists(file)) io::write_text(file, lines_until(file, last_step));
}

void JsonLines::append(const std::string& line) {
  if (!out_.is_open()) {
    out_.open(path_, std::ios::app);
    check(out_.good(), "cannot write {}: check output.path and its permissions", path_.string());
  }
  out_ << line << std::endl;
  check(out_.good(), "cannot write {}: is the disk full?", path_.string());
}

void JsonLines::sync() {
  if (out_.is_open()) io::sync_path(path_);
}

}  // namespace llmz::run
