#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "llmz/data/text_source.h"
#include "src/data/source.h"

namespace llmz::data {

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
  BlockReader(const BlockReader&) = delete;  // the open source knows where it is
  BlockReader& operator=(const BlockReader&) = delete;
  /// The next block that has a piece; absent at the end.
  std::optional<TextBlock> next();
  const std::vector<TextFile>& files() const { return files_; }
  /// Bytes taken from the disk so far.
  uint64_t consumed() const { return consumed_before_ + (source_ ? source_->consumed() : 0); }

 private:
  bool open_next_file();
  bool next_is_validation();

  std::vector<TextFile> files_;
  TextOptions options_;
  SplitOptions split_options_;
  DocumentSplit split_;
  bool tail_split_ = false;  // documents are too few to be divided: the end of each file is validation

  size_t next_file_ = 0;
  std::unique_ptr<SourceReader> source_;
  uint64_t consumed_before_ = 0;
  uint64_t documents_ = 0;
};

/// The text of a piece; a JSON line is parsed. Throws Error naming file and line.
std::string piece_text(const TextFile& file, const TextBlock& block, const TextPiece& piece,
                       const TextOptions& options);

}  // namespace llmz::data
