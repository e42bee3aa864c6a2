#include "src/data/block_reader.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "llmz/core/error.h"
#include "llmz/core/random.h"
#include "src/data/text_lines.h"

namespace llmz::data {
namespace {

bool is_document(const TextFile& file, const TextOptions& options) {
  return file.format->one_document != nullptr && file.format->one_document(options);
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
                       const TextOptions& options) {
  const std::string_view raw = std::string_view(block.bytes).substr(piece.begin, piece.length);
  if (file.format->text == nullptr) return std::string(raw);
  try {
    return file.format->text(raw, options);
  } catch (const Error& error) {
    if (piece.line == 0) fail("{}: {}", file.path.string(), error.what());
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
  const size_t divided = std::min(split_options_.first_validation_file, files_.size());
  const auto whole = std::count_if(files_.begin(), files_.begin() + static_cast<std::ptrdiff_t>(divided),
                                   [&](const TextFile& file) { return is_document(file, options_); });
  tail_split_ = split.fraction > 0 && static_cast<double>(whole) * split.fraction < 1;
}

bool BlockReader::open_next_file() {
  if (next_file_ == files_.size()) return false;
  const TextFile& file = files_[next_file_];
  const bool divided = next_file_ < split_options_.first_validation_file;
  ++next_file_;
  const bool has_tail = tail_split_ && divided && is_document(file, options_);
  source_ = file.format->open({.file = file,
                               .options = options_,
                               .next_is_validation = [this] { return next_is_validation(); },
                               .tail = has_tail ? split_options_.fraction : 0});
  return true;
}

std::optional<TextBlock> BlockReader::next() {
  while (source_ || open_next_file()) {
    TextBlock block;
    block.file = next_file_ - 1;
    if (!source_->read(block)) {
      consumed_before_ += source_->consumed();
      source_.reset();
    }
    if (!block.pieces.empty()) return block;
  }
  return std::nullopt;
}

bool BlockReader::next_is_validation() {
  if (next_file_ > split_options_.first_validation_file) return true;
  return split_.validation(documents_++);
}

}  // namespace llmz::data
