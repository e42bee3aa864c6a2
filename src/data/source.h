#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "llmz/config/fields.h"
#include "llmz/data/text_source.h"

namespace llmz::data {

/// Longest text that is tokenized at once; also about the text of a block.
constexpr size_t kPieceBytes = size_t{256} << 10;

/// A stretch of a block that goes to the tokenizer as one: a document, a part of a long one, or a raw JSON line.
struct TextPiece {
  size_t begin = 0, length = 0;  ///< in TextBlock::bytes
  bool starts_document = true, ends_document = true;
  bool validation = false;
  uint64_t line = 0;  ///< of its file, from 1, where it is a line
};

/// About kPieceBytes of text of one file: the unit of work of a thread.
struct TextBlock {
  size_t file = 0;  ///< index into BlockReader::files()
  std::string bytes;
  std::vector<TextPiece> pieces;
};

/// Where to divide a long text: at most `limit` bytes from its start (0 < limit < text.size()). Best after a line end
/// between two non-spaces, else before a line end (a space) that follows a non-space, else between two UTF-8
/// characters.
size_t find_cut(std::string_view text, size_t limit);

/// A file that is being read.
class SourceReader {
 public:
  virtual ~SourceReader() = default;
  /// Appends pieces to `block` until it has about kPieceBytes; false when the file has ended. Throws Error naming the
  /// file, and the line where there are lines.
  virtual bool read(TextBlock& block) = 0;
  /// Bytes taken from the disk so far.
  virtual uint64_t consumed() const = 0;
};

/// What a reader is made from; `file` and `options` outlive it.
struct SourceContext {
  const TextFile& file;
  const TextOptions& options;
  std::function<bool()> next_is_validation;  ///< called once for each document, in order
  /// Not 0: documents are too few to be divided, and so much of the text at the file's end is validation.
  double tail = 0;
};

/// One registry row: a format of text files, in its own file, src/data/sources/<name>.cpp, or all there is to know of a
/// name's ending.
struct SourceRow {
  struct Ending {
    std::string_view extension;         ///< ".txt"; one of a compression may follow
    bool in_folders = true;             ///< taken from a folder that was named, not only when named itself
    bool compressed_in_folders = true;  ///< likewise, where it is compressed
  };
  const char* name;
  const char* title;  ///< for people
  std::span<const Ending> endings;
  std::unique_ptr<SourceReader> (*open)(SourceContext context);
  /// The text of a piece, made by a worker; null: its bytes. Throws Error that says what is wrong, not where.
  std::string (*text)(std::string_view raw, const TextOptions& options) = nullptr;
  /// Whether each file is one document, whose end may be validation (SourceContext::tail); null: never.
  bool (*one_document)(const TextOptions& options) = nullptr;
  /// Its settings: members of TextOptions, or a struct of its own in TextOptions::own; null: none.
  config::Fields<TextOptions> (*fields)() = nullptr;
};

/// Every format, the first of which takes files that were named whatever their ending.
std::span<const SourceRow* const> source_rows();

}  // namespace llmz::data
