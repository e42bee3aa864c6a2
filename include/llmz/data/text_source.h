#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "llmz/config/fields.h"

namespace llmz::data {

struct SourceRow;

/// A text file as found on disk. Compression is not noted here: it is told by the file's first bytes when opened.
struct TextFile {
  std::filesystem::path path;
  const SourceRow* format = nullptr;  ///< how it is read: a row of the registry
  uint64_t bytes = 0;                 ///< on disk, compressed or not
};

/// The text files that `inputs` name, in the order of `inputs`, each file once. An input is
///   - a file, whatever its name: JSON lines where it ends in .jsonl, .ndjson or .json, else plain text (.gz and .zst
///     after that are looked through);
///   - a folder: all files below it that end in .txt, .text, .md, .jsonl, .ndjson, compressed or not, and .json.gz,
///     .json.zst (a bare .json is more often a setting than a text), sorted by path; hidden ones are left out;
///   - a pattern with * ? [ ] (no **), matched by glob(3), sorted; matching folders are taken as above.
/// Throws Error for an input that names nothing, and for a folder or pattern without a text file.
std::vector<TextFile> find_text_files(std::span<const std::string> inputs);

/// How text files are taken apart.
struct TextOptions {
  /// Member of each JSON line that holds its text. Each line is one document.
  std::string text_field = "text";
  /// Plain text: a document ends at a line that equals this one (which is not part of it; neither are line ends before
  /// it and empty lines after it). "" separates documents by blank lines. Absent: each file is one document.
  std::optional<std::string> separator_line;
  config::Bag own;  ///< settings of formats that take others than these
};
/// What can be read, for people: "plain text or JSON lines, as they are or in .gz or .zst".
std::string text_choices();
/// The settings of all formats.
config::Fields<TextOptions> text_fields();

class BlockReader;
struct SplitOptions;

/// The text of files, one document or piece of a long document (256 KB) at a time; for tokenizer training. `next`
/// fits `SentencePieceTraining::text`.
class TextReader {
 public:
  TextReader(std::vector<TextFile> files, TextOptions options);
  /// Leaves out what `split` takes for validation.
  TextReader(std::vector<TextFile> files, TextOptions options, const SplitOptions& split);
  TextReader(TextReader&&) noexcept;
  ~TextReader();
  /// Replaces `text`; false at the end. Throws Error naming file and line for what cannot be read.
  bool next(std::string& text);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace llmz::data
