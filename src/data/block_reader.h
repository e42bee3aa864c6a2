#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "llmz/data/text_source.h"
#include "src/data/byte_stream.h"

namespace llmz::data {

/// Longest text that is tokenized at once; also about the text of a block.
constexpr size_t kPieceBytes = size_t{256} << 10;

/// A stretch of a block that goes to the tokenizer as one: a document, a part of a long one, or a raw JSON line.
struct TextPiece {
  size_t begin = 0, length = 0;  ///< in TextBlock::bytes
  bool starts_document = true, ends_document = true;
  bool validation = false;
  uint64_t line = 0;  ///< of a JSON line in its file, from 1
};

/// About kPieceBytes of text of one file: the unit of work of a thread.
struct TextBlock {
  size_t file = 0;  ///< index into BlockReader::files()
  std::string bytes;
  std::vector<TextPiece> pieces;
};

/// Which documents are validation: one of each 1/fraction, drawn by the seed. A function of the document's index alone.
class DocumentSplit {
 public:
  DocumentSplit(double fraction, uint64_t seed);
  bool validation(uint64_t document) const;

 private:
  double fraction_;
  uint64_t seed_;
};

/// How BlockReader divides training from validation text; see PrepareOptions.
struct SplitOptions {
  double fraction = 0;  ///< of documents, in [0, 1)
  uint64_t seed = 0;
  size_t first_validation_file = SIZE_MAX;  ///< this file and all after it are validation as a whole
};

/// Cuts files into blocks, in order; deterministic. At most a few blocks are in memory, however long a file or a
/// document (JSON lines are held whole).
class BlockReader {
 public:
  BlockReader(std::vector<TextFile> files, TextOptions options, SplitOptions split);
  /// The next block that has a piece; absent at the end.
  std::optional<TextBlock> next();
  const std::vector<TextFile>& files() const { return files_; }
  /// Bytes taken from the disk so far.
  uint64_t consumed() const { return consumed_before_ + (stream_ ? stream_->consumed() : 0); }

 private:
  bool open_next_file();
  void close_file();
  /// The next line with its line end, or a part of one that is longer than `limit`; false at the end of the file.
  bool read_line(std::string_view& line, size_t limit);
  /// Whatever comes next.
  bool read_any(std::string_view& text);
  bool whole_files() const { return !options_.separator_line; }

  void read_json_block(TextBlock& block);
  void read_plain_block(TextBlock& block);
  bool is_separator(std::string_view line) const;
  void begin_document();
  void end_document(TextBlock& block);
  void cut_long_piece(TextBlock& block);
  void end_piece(TextBlock& block, size_t length, bool ends_document);
  bool next_is_validation();

  std::vector<TextFile> files_;
  TextOptions options_;
  SplitOptions split_options_;
  DocumentSplit split_;
  bool tail_split_ = false;  // documents are too few to be divided: the end of each file is validation

  size_t next_file_ = 0;
  std::unique_ptr<ByteStream> stream_;
  std::string buffer_;
  size_t buffer_begin_ = 0, buffer_end_ = 0;
  uint64_t line_number_ = 0;
  bool at_line_start_ = true;
  uint64_t consumed_before_ = 0;
  uint64_t documents_ = 0;

  // The open piece of a plain text: the block's bytes from piece_begin_ on.
  size_t piece_begin_ = 0;
  std::string carried_;  // its text, between two blocks
  bool in_document_ = false, starts_document_ = false;
  bool piece_validation_ = false;
  uint64_t piece_offset_ = 0;          // of its start in the decompressed file; kept where files are whole documents
  uint64_t tail_offset_ = UINT64_MAX;  // where this file's validation tail starts
};

/// The text of a piece; a JSON line is parsed. Throws Error naming file and line.
std::string piece_text(const TextFile& file, const TextBlock& block, const TextPiece& piece,
                       std::string_view json_field);

/// Where to divide a long text: at most `limit` bytes from its start (0 < limit < text.size()). Best after a line end
/// between two non-spaces, else before a line end (a space) that follows a non-space, else between two UTF-8
/// characters.
size_t find_cut(std::string_view text, size_t limit);

}  // namespace llmz::data
