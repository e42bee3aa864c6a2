#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>

namespace llmz::data {

/// The bytes of a file, decompressed where it is gzip or zstd (told by its first bytes; several members or frames one
/// after the other are one stream).
class ByteStream {
 public:
  /// Throws Error when the file cannot be opened, or is named .gz or .zst and is not that.
  static std::unique_ptr<ByteStream> open(const std::filesystem::path& path);
  virtual ~ByteStream() = default;
  /// Fills `to` with up to `count` > 0 bytes; 0 at the end. Throws Error for damaged or truncated compressed data.
  virtual size_t read(char* to, size_t count) = 0;
  /// Bytes taken from the disk so far, for progress.
  virtual uint64_t consumed() const = 0;
};

}  // namespace llmz::data
