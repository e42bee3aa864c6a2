#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

namespace llmz::run {

/// A file of a run folder with one JSON object a line, each with its "step".
class JsonLines {
 public:
  /// Takes out lines of steps after `last_step` (a run that was killed later than its checkpoint) and a broken last
  /// line. The file appears with its first line.
  JsonLines(const std::filesystem::path& file, int64_t last_step);

  void append(const std::string& line);
  /// Waits until every line is on the disk.
  void sync();

 private:
  std::filesystem::path path_;
  std::ofstream out_;
};

}  // namespace llmz::run
