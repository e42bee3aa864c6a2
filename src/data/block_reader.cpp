#include "src/data/block_reader.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "llmz/core/error.h"
#include "llmz/core/random.h"
#include "src/data/json_text.h"

namespace llmz::data {
namespace {

constexpr size_t kReadBytes = size_t{1} << 18;
constexpr size_t kJsonLineBytes = size_t{256} << 20;

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool is_blank(std::string_view line) { return std::all_of(line.begin(), line.end(), is_space); }

std::string_view without_trailing_space(std::string_view line) {
  while (!line.empty() && is_space(line.back())) line.remove_suffix(1);
  return line;
}

/// Of the text in a file, decompressed. A compressed file has to be read for that.
uint64_t text_size(const TextFile& file) {
  check(std::filesystem::is_regular_file(file.path),
        "{}: not a regular file, so its last part cannot be set aside; name validation texts, or no validation at all",
        file.path.string());
  const auto stream = ByteStream::open(file.path);
  std::string buffer(kReadBytes, '\0');
  uint64_t size = 0;
  while (const size_t got = stream->read(buffer.data(), buffer.size())) size += got;
  return size;
}

}  // namespace

size_t find_cut(std::string_view text, size_t limit) {
  for (size_t c = limit; c >= 2; --c) {
    if (text[c - 1] == '\n' && !is_space(text[c - 2]) && !is_space(text[c])) return c;
  }
  for (const bool at_line_end : {true, false}) {
    for (size_t c = limit; c >= 1; --c) {
      const bool wanted = at_line_end ? text[c] == '\n' || text[c] == '\r' : is_space(text[c]);
      if (wanted && !is_space(text[c - 1])) return c;
    }
  }
  size_t cut = limit;
  while (cut > 1 && limit - cut < 3 && (static_cast<unsigned char>(text[cut]) & 0xc0) == 0x80) --cut;
  return cut;
}

std::string piece_text(const TextFile& file, const TextBlock& block, const TextPiece& piece,
                       std::string_view json_field) {
  const std::string_view raw = std::string_view(block.bytes).substr(piece.begin, piece.length);
  if (file.kind == TextKind::plain) return std::string(raw);
  try {
    return json_text(raw, json_field);
  } catch (const Error& error) {
    fail("{}, line {}: {}", file.path.string(), piece.line, error.what());
  }
}

DocumentSplit::DocumentSplit(double fraction, uint64_t seed) : fraction_(fraction), seed_(seed) {
  check(fraction >= 0 && fraction < 1, "the validation fraction must be at least 0 and below 1, got {}", fraction);
}

bool DocumentSplit::validation(uint64_t document) const {
  if (fraction_ <= 0) return false;
  // Stratum k holds the documents from ceil(k / fraction) on; one of them is drawn. The share is then exact, where a
  // coin for each document might leave a small corpus without validation.
  const auto start = [&](uint64_t k) { return static_cast<uint64_t>(std::ceil(static_cast<double>(k) / fraction_)); };
  auto k = static_cast<uint64_t>(static_cast<double>(document) * fraction_);
  while (start(k) > document) --k;
  while (start(k + 1) <= document) ++k;
  constexpr uint32_t kStream = 0xffffffff;  // the loader's epochs count up from 0
  const RandomStream draws(seed_, Purpose::data_order, kStream);
  return document == start(k) + draws.below(k, start(k + 1) - start(k));
}

BlockReader::BlockReader(std::vector<TextFile> files, TextOptions options, SplitOptions split)
    : files_(std::move(files)),
      options_(std::move(options)),
      split_options_(split),
      split_(split.fraction, split.seed) {
  if (options_.separator_line) {
    std::string& line = *options_.separator_line;
    check(line.find('\n') == std::string::npos, "the document separator must be a single line");
    line = without_trailing_space(line);
  }
  const size_t divided = std::min(split_options_.first_validation_file, files_.size());
  const auto plain = std::count_if(files_.begin(), files_.begin() + static_cast<std::ptrdiff_t>(divided),
                                   [](const TextFile& f) { return f.kind == TextKind::plain; });
  tail_split_ = whole_files() && split.fraction > 0 && static_cast<double>(plain) * split.fraction < 1;
}

bool BlockReader::open_next_file() {
  if (next_file_ == files_.size()) return false;
  const TextFile& file = files_[next_file_];
  const bool divided = next_file_ < split_options_.first_validation_file;
  ++next_file_;
  tail_offset_ = UINT64_MAX;
  if (tail_split_ && divided && file.kind == TextKind::plain) {
    const auto size = static_cast<double>(text_size(file));
    tail_offset_ = std::max<uint64_t>(1, static_cast<uint64_t>(size * (1 - split_options_.fraction)));
  }
  stream_ = ByteStream::open(file.path);
  buffer_.resize(kReadBytes);
  buffer_begin_ = buffer_end_ = 0;
  while (buffer_end_ < 3) {
    const size_t got = stream_->read(buffer_.data() + buffer_end_, buffer_.size() - buffer_end_);
    if (got == 0) break;
    buffer_end_ += got;
  }
  const std::string_view start = std::string_view(buffer_).substr(0, buffer_end_);
  check(!start.starts_with("\xff\xfe") && !start.starts_with("\xfe\xff"),
        "{}: UTF-16 text; convert it to UTF-8 first (iconv -f utf-16 -t utf-8)", file.path.string());
  if (start.starts_with("\xef\xbb\xbf")) buffer_begin_ = 3;  // a byte-order mark is not text
  line_number_ = 0;
  at_line_start_ = true;
  piece_offset_ = 0;
  return true;
}

void BlockReader::close_file() {
  consumed_before_ += stream_->consumed();
  stream_.reset();
}

bool BlockReader::read_line(std::string_view& line, size_t limit) {
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

bool BlockReader::read_any(std::string_view& text) {
  if (buffer_begin_ == buffer_end_) {
    buffer_begin_ = 0;
    buffer_end_ = stream_->read(buffer_.data(), buffer_.size());
  }
  text = {buffer_.data() + buffer_begin_, buffer_end_ - buffer_begin_};
  buffer_begin_ = buffer_end_;
  return !text.empty();
}

std::optional<TextBlock> BlockReader::next() {
  while (stream_ || open_next_file()) {
    TextBlock block;
    block.file = next_file_ - 1;
    if (files_[block.file].kind == TextKind::json_lines) {
      read_json_block(block);
    } else {
      read_plain_block(block);
    }
    if (!block.pieces.empty()) return block;
  }
  return std::nullopt;
}

void BlockReader::read_json_block(TextBlock& block) {
  std::string_view line;
  while (block.bytes.size() < kPieceBytes) {
    if (!read_line(line, kJsonLineBytes)) return close_file();
    ++line_number_;
    check(line.size() < kJsonLineBytes, "{}, line {}: longer than {} MB; is this JSON with one object a line?",
          files_[block.file].path.string(), line_number_, kJsonLineBytes >> 20);
    if (is_blank(line)) continue;
    TextPiece piece;
    piece.begin = block.bytes.size();
    piece.length = line.size();
    piece.validation = next_is_validation();
    piece.line = line_number_;
    block.bytes += line;
    block.pieces.push_back(piece);
  }
}

bool BlockReader::next_is_validation() {
  if (next_file_ > split_options_.first_validation_file) return true;
  return split_.validation(documents_++);
}

bool BlockReader::is_separator(std::string_view line) const {
  return !whole_files() && at_line_start_ && without_trailing_space(line) == *options_.separator_line;
}

void BlockReader::read_plain_block(TextBlock& block) {
  block.bytes = std::exchange(carried_, {});
  piece_begin_ = 0;
  std::string_view line;
  while (piece_begin_ < kPieceBytes) {
    // Lines matter only where they can end a document; one longer than kReadBytes comes in parts.
    if (!(whole_files() ? read_any(line) : read_line(line, kReadBytes))) {
      end_document(block);
      return close_file();
    }
    const bool separator = is_separator(line);
    const bool skipped = separator || (!in_document_ && !whole_files() && at_line_start_ && is_blank(line));
    at_line_start_ = line.back() == '\n';
    if (separator) end_document(block);
    if (skipped) continue;
    if (!in_document_) begin_document();
    block.bytes += line;
    cut_long_piece(block);
  }
  carried_ = block.bytes.substr(piece_begin_);
  block.bytes.resize(piece_begin_);
}

void BlockReader::begin_document() {
  in_document_ = starts_document_ = true;
  const bool tail = tail_offset_ != UINT64_MAX;
  piece_validation_ = tail ? false : next_is_validation();
}

void BlockReader::end_document(TextBlock& block) {
  if (!in_document_) return;
  if (!whole_files()) {
    while (block.bytes.size() > piece_begin_ && (block.bytes.back() == '\n' || block.bytes.back() == '\r')) {
      block.bytes.pop_back();
    }
  }
  end_piece(block, block.bytes.size() - piece_begin_, true);
  in_document_ = false;
}

void BlockReader::cut_long_piece(TextBlock& block) {
  while (true) {
    const std::string_view open = std::string_view(block.bytes).substr(piece_begin_);
    const uint64_t to_tail =
        tail_offset_ == UINT64_MAX || piece_validation_ ? UINT64_MAX : tail_offset_ - piece_offset_;
    const size_t limit = std::min<uint64_t>(kPieceBytes, to_tail);
    if (open.size() <= limit) return;
    const size_t cut = find_cut(open, limit);
    const bool at_tail = limit == to_tail;
    end_piece(block, cut, at_tail);
    if (at_tail) piece_validation_ = starts_document_ = true;
  }
}

void BlockReader::end_piece(TextBlock& block, size_t length, bool ends_document) {
  if (length > 0 || !starts_document_) {
    block.pieces.push_back({piece_begin_, length, starts_document_, ends_document, piece_validation_, 0});
  }
  piece_begin_ += length;
  piece_offset_ += length;
  starts_document_ = false;
}

}  // namespace llmz::data
