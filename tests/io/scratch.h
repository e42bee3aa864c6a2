#pragma once

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <string_view>

#include "llmz/core/error.h"

/// A folder that lives as long as the object.
class ScratchFolder {
 public:
  /// `in_memory`: where fsync costs nothing, if there is such a place; for tests that write thousands of files.
  explicit ScratchFolder(bool in_memory = false) {
    if (in_memory && make("/dev/shm")) return;
    llmz::check(make(std::filesystem::temp_directory_path()), "cannot make a folder for tests");
  }
  ~ScratchFolder() {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(std::string_view name) const { return path_ / name; }

 private:
  bool make(const std::filesystem::path& parent) {
    std::string pattern = (parent / "llmz-test-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) return false;
    path_ = pattern;
    return true;
  }
  std::filesystem::path path_;
};

/// Without any care for crashes, unlike what is tested.
inline void put(const std::filesystem::path& path, std::string_view content) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(content.data(), static_cast<std::streamsize>(content.size()));
}

inline std::set<std::string> names_in(const std::filesystem::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) names.insert(entry.path().filename().string());
  return names;
}
