#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "src/data/byte_stream.h"

namespace llmz::data {

inline bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool is_blank(std::string_view line);

/// The text of a file, decompressed, a line or a buffer at a time. A byte-order mark is left out.
class TextLines {
 public:
  /// Throws Error for a file that cannot be opened, and for UTF-16.
  explicit TextLines(const std::filesystem::path& path);
  /// The next line with its line end, or a part of one that is longer than `limit`; false at the end of the file.
  bool read_line(std::string_view& line, size_t limit);
  /// Whatever comes next; false at the end of the file.
  bool read_any(std::string_view& text);
  uint64_t consumed() const { return stream_->consumed(); }

  static constexpr size_t kBuffer = size_t{1} << 18;

 private:
  std::unique_ptr<ByteStream> stream_;
  std::string buffer_;
  size_t buffer_begin_ = 0, buffer_end_ = 0;
};

}  // namespace llmz::data
