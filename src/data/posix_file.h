#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>

namespace llmz::data {

/// A file that is read or written as a stream: a pipe, a compressed text, a shard whose header is completed last. For
/// everything else there is io/files.h. Every failure throws Error naming the file and the system's reason.
class PosixFile {
 public:
  static PosixFile open_for_reading(const std::filesystem::path& path);
  static PosixFile create(const std::filesystem::path& path);
  PosixFile(PosixFile&& other) noexcept;
  PosixFile& operator=(PosixFile&&) = delete;
  ~PosixFile();

  const std::filesystem::path& path() const { return path_; }
  /// Reads up to `count` bytes at the file position; 0 at the end.
  size_t read_some(void* to, size_t count);
  /// Writes all or throws: a full disk is an Error, never a short file taken for whole.
  void write(const void* from, size_t count);
  void write_at(const void* from, size_t count, uint64_t offset);
  void sync();
  void close();

 private:
  PosixFile(std::filesystem::path path, int descriptor) : path_(std::move(path)), descriptor_(descriptor) {}
  [[noreturn]] void fail_with_errno(std::string_view action) const;
  std::filesystem::path path_;
  int descriptor_ = -1;
};

/// The name under which a file is written until it is whole.
std::filesystem::path unfinished_name(const std::filesystem::path& path);
/// Renames over and fsyncs the folder, so that the new name survives a power cut.
void publish(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace llmz::data
