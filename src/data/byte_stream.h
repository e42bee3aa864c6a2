#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "src/data/posix_file.h"

namespace llmz::data {

/// The bytes of a file, decompressed where it is compressed (told by its first bytes; several members or frames one
/// after the other are one stream).
class ByteStream {
 public:
  /// Throws Error when the file cannot be opened, or is named as compressed (.gz) and is not that.
  static std::unique_ptr<ByteStream> open(const std::filesystem::path& path);
  virtual ~ByteStream() = default;
  /// Fills `to` with up to `count` > 0 bytes; 0 at the end. Throws Error for damaged or truncated compressed data.
  virtual size_t read(char* to, size_t count) = 0;
  /// Bytes taken from the disk so far, for progress.
  virtual uint64_t consumed() const = 0;
};

/// What is on the disk, a buffer at a time.
struct DiskBytes {
  static constexpr size_t kSize = size_t{1} << 18;
  PosixFile file;
  std::vector<unsigned char> buffer = std::vector<unsigned char>(kSize);
  size_t begin = 0, end = 0;  ///< unread bytes of `buffer`
  uint64_t consumed = 0;

  /// True when there is an unread byte.
  bool fill();
  std::string name() const { return file.path().string(); }
};

/// One registry row: a kind of compression, in its own file, src/data/compression/<name>.cpp.
struct Compression {
  const char* name;
  const char* extension;   ///< of compressed files: ".gz"
  std::string_view magic;  ///< their first bytes
  /// `input`: filled once, nothing of it read.
  std::unique_ptr<ByteStream> (*open)(DiskBytes input);
};
std::span<const Compression* const> compressions();
/// The one that a file's name tells; null: none.
const Compression* compression_named(const std::filesystem::path& path);

}  // namespace llmz::data
