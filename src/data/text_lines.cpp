#include "src/data/text_lines.h"

#include <algorithm>
#include <cstring>

#include "llmz/core/error.h"

namespace llmz::data {

bool is_blank(std::string_view line) { return std::all_of(line.begin(), line.end(), is_space); }

TextLines::TextLines(const std::filesystem::path& path) : stream_(ByteStream::open(path)), buffer_(kBuffer, '\0') {
  while (buffer_end_ < 3) {
    const size_t got = stream_->read(buffer_.data() + buffer_end_, buffer_.size() - buffer_end_);
    if (got == 0) break;
    buffer_end_ += got;
  }
  const std::string_view start = std::string_view(buffer_).substr(0, buffer_end_);
  check(!start.starts_with("\xff\xfe") && !start.starts_with("\xfe\xff"),
        "{}: UTF-16 text; convert it to UTF-8 first (iconv -f utf-16 -t utf-8)", path.string());
  if (start.starts_with("\xef\xbb\xbf")) buffer_begin_ = 3;  // a byte-order mark is not text
}

bool TextLines::read_line(std::string_view& line, size_t limit) {
  size_t scanned = 0;  // bytes of the line known to have no line end
  while (true) {
    const size_t held = buffer_end_ - buffer_begin_;
    const char* from = buffer_.data() + buffer_begin_;
    const void* end = std::memchr(from + scanned, '\n', held - scanned);
    if (end != nullptr || held >= limit) {
      const size_t length = end != nullptr ? static_cast<size_t>(static_cast<const char*>(end) - from) + 1 : held;
      line = {from, length};
      buffer_begin_ += length;
      return true;
    }
    scanned = held;
    std::memmove(buffer_.data(), from, held);
    buffer_begin_ = 0;
    buffer_end_ = held;
    if (held == buffer_.size()) buffer_.resize(2 * held);
    const size_t got = stream_->read(buffer_.data() + held, buffer_.size() - held);
    buffer_end_ += got;
    if (got == 0) {  // the last line has no line end
      line = {buffer_.data(), held};
      buffer_begin_ = held;
      return held > 0;
    }
  }
}

bool TextLines::read_any(std::string_view& text) {
  if (buffer_begin_ == buffer_end_) {
    buffer_begin_ = 0;
    buffer_end_ = stream_->read(buffer_.data(), buffer_.size());
  }
  text = {buffer_.data() + buffer_begin_, buffer_end_ - buffer_begin_};
  buffer_begin_ = buffer_end_;
  return !text.empty();
}

}  // namespace llmz::data
