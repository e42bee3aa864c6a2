#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace llmz::io {

/// CRC-32 as in zlib, gzip and PNG, of bytes that arrive in pieces.
class Crc32 {
 public:
  void update(const void* data, size_t bytes);
  uint32_t value() const { return value_; }

 private:
  uint32_t value_ = 0;
};

/// What a manifest says of a file.
struct FileDigest {
  uint64_t bytes = 0;
  uint32_t crc32 = 0;
  bool operator==(const FileDigest&) const = default;
};

/// Reads the whole file in pieces. Throws Error when it cannot be read.
FileDigest digest_file(const std::filesystem::path& path);

/// The whole file. Throws Error when it cannot be read.
std::string read_text(const std::filesystem::path& path);

/// Strict JSON: no comments, no key twice in one object. Throws Error as "file:line:column: what was found; what was
/// expected", the place being where the offending word ends. `source` stands for the file's name in `parse_json`.
nlohmann::json read_json(const std::filesystem::path& path);
nlohmann::json parse_json(std::string_view text, std::string_view source);

/// Replaces `path` by `content` at once: whoever reads it, also after a crash, finds the old content or the new.
/// Throws Error, with the old content in place, when it cannot be written.
void write_text(const std::filesystem::path& path, std::string_view content);
/// `write_text` of indented JSON and a final newline.
void write_json(const std::filesystem::path& path, const nlohmann::json& value);

/// Makes every missing folder of `path` and lets it survive a power cut.
void make_folder(const std::filesystem::path& path);
/// fsync of a file's content, or of a folder's list of names.
void sync_path(const std::filesystem::path& path);

/// A file open for reading at any place, from any number of threads.
class InputFile {
 public:
  explicit InputFile(std::filesystem::path path);
  ~InputFile();
  InputFile(InputFile&& other) noexcept;
  InputFile& operator=(InputFile&&) = delete;

  const std::filesystem::path& path() const { return path_; }
  uint64_t size() const { return size_; }
  /// Exactly `bytes` bytes from `offset`; Error when the file ends before.
  void read(void* into, size_t bytes, uint64_t offset) const;

 private:
  std::filesystem::path path_;
  int fd_ = -1;
  uint64_t size_ = 0;
};

/// A file that appears under its name whole or not at all. It is written aside, to "<path>.tmp-<pid>"; `commit` syncs
/// it and renames it. Without `commit` nothing is left of it. Every failed write is an Error that names the file, the
/// bytes needed and the bytes free.
class OutputFile {
 public:
  explicit OutputFile(std::filesystem::path path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  /// Asks the filesystem for room at once, so that a full disk is found before the first byte.
  void reserve(uint64_t bytes);
  void write(const void* data, size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  FileDigest commit();

 private:
  [[noreturn]] void fail_write(int error) const;
  std::filesystem::path path_, aside_;
  int fd_ = -1;
  uint64_t needed_ = 0, written_ = 0;
  Crc32 crc_;
};

/// Says that this process alone writes into a folder, until the object is gone or the process ends, however it ends.
/// On a filesystem without locks it always succeeds and guards nothing.
class FolderLock {
 public:
  /// Nothing when another process, or another FolderLock of this one, holds the folder.
  static std::optional<FolderLock> try_acquire(const std::filesystem::path& folder);
  ~FolderLock();
  FolderLock(FolderLock&& other) noexcept;
  FolderLock& operator=(FolderLock&& other) noexcept;

 private:
  explicit FolderLock(int fd) : fd_(fd) {}
  int fd_ = -1;
};

}  // namespace llmz::io
