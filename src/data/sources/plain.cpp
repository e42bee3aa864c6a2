#include <algorithm>
#include <utility>

#include "llmz/core/error.h"
#include "src/data/source.h"
#include "src/data/text_lines.h"

namespace llmz::data {
namespace {

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
  std::string buffer(TextLines::kBuffer, '\0');
  uint64_t size = 0;
  while (const size_t got = stream->read(buffer.data(), buffer.size())) size += got;
  return size;
}

uint64_t tail_offset(const SourceContext& context) {
  if (context.tail == 0) return UINT64_MAX;
  return std::max<uint64_t>(1,
                            static_cast<uint64_t>(static_cast<double>(text_size(context.file)) * (1 - context.tail)));
}

std::optional<std::string> separator_of(const TextOptions& options) {
  if (!options.separator_line) return std::nullopt;
  const std::string& line = *options.separator_line;
  check(line.find('\n') == std::string::npos, "the document separator must be a single line");
  return std::string(without_trailing_space(line));
}

/// Text as it is: a file is a document, or its documents end at separator lines. Long ones come in pieces.
class PlainReader final : public SourceReader {
 public:
  explicit PlainReader(SourceContext context)
      : context_(std::move(context)),
        separator_(separator_of(context_.options)),
        tail_offset_(tail_offset(context_)),
        lines_(context_.file.path) {}

  bool read(TextBlock& block) override;
  uint64_t consumed() const override { return lines_.consumed(); }

 private:
  bool whole_files() const { return !separator_; }
  bool is_separator(std::string_view line) const;
  void begin_document();
  void end_document(TextBlock& block);
  void cut_long_piece(TextBlock& block);
  void end_piece(TextBlock& block, size_t length, bool ends_document);

  SourceContext context_;
  std::optional<std::string> separator_;
  uint64_t tail_offset_;  // where this file's validation tail starts
  TextLines lines_;
  bool at_line_start_ = true;

  // The open piece: the block's bytes from piece_begin_ on.
  size_t piece_begin_ = 0;
  std::string carried_;  // its text, between two blocks
  bool in_document_ = false, starts_document_ = false;
  bool piece_validation_ = false;
  uint64_t piece_offset_ = 0;  // of its start in the decompressed file; kept where files are whole documents
};

bool PlainReader::is_separator(std::string_view line) const {
  return !whole_files() && at_line_start_ && without_trailing_space(line) == *separator_;
}

bool PlainReader::read(TextBlock& block) {
  block.bytes = std::exchange(carried_, {});
  piece_begin_ = 0;
  std::string_view line;
  while (piece_begin_ < kPieceBytes) {
    // Lines matter only where they can end a document; one longer than a buffer comes in parts.
    if (!(whole_files() ? lines_.read_any(line) : lines_.read_line(line, TextLines::kBuffer))) {
      end_document(block);
      return false;
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
  return true;
}

void PlainReader::begin_document() {
  in_document_ = starts_document_ = true;
  const bool tail = tail_offset_ != UINT64_MAX;
  piece_validation_ = tail ? false : context_.next_is_validation();
}

void PlainReader::end_document(TextBlock& block) {
  if (!in_document_) return;
  if (!whole_files()) {
    while (block.bytes.size() > piece_begin_ && (block.bytes.back() == '\n' || block.bytes.back() == '\r')) {
      block.bytes.pop_back();
    }
  }
  end_piece(block, block.bytes.size() - piece_begin_, true);
  in_document_ = false;
}

void PlainReader::cut_long_piece(TextBlock& block) {
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

void PlainReader::end_piece(TextBlock& block, size_t length, bool ends_document) {
  if (length > 0 || !starts_document_) {
    block.pieces.push_back({piece_begin_, length, starts_document_, ends_document, piece_validation_, 0});
  }
  piece_begin_ += length;
  piece_offset_ += length;
  starts_document_ = false;
}

std::unique_ptr<SourceReader> open_plain(SourceContext context) {
  return std::make_unique<PlainReader>(std::move(context));
}

bool files_are_documents(const TextOptions& options) { return !options.separator_line; }

config::Fields<TextOptions> plain_fields() {
  return config::Fields<TextOptions>().key(
      "separator", &TextOptions::separator_line,
      "Plain text: the line that ends a document, \"\" for blank lines; without it each file is one document");
}

constexpr SourceRow::Ending kPlainEndings[] = {{".txt"}, {".text"}, {".md"}};

}  // namespace

extern const SourceRow kPlain;
const SourceRow kPlain = {.name = "plain",
                          .title = "plain text",
                          .endings = kPlainEndings,
                          .open = open_plain,
                          .one_document = files_are_documents,
                          .fields = plain_fields};

}  // namespace llmz::data
