#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "llmz/data/manifest.h"
#include "llmz/data/text_source.h"
#include "llmz/text/tokenizer.h"

namespace llmz::data {

struct PrepareProgress {
  uint64_t bytes_read = 0;   ///< of the input files as they lie on disk
  uint64_t bytes_total = 0;  ///< their sizes; 0 where not known (a pipe)
  uint64_t text_bytes = 0;   ///< tokenized
  int64_t tokens = 0;
  int64_t documents = 0;
};

struct PrepareOptions {
  std::vector<std::string> inputs;             ///< files, folders, patterns; see find_text_files
  std::vector<std::string> validation_inputs;  ///< validation as a whole; left out of `inputs` where they are in both
  TextOptions text;
  std::filesystem::path out;  ///< folder; made if missing
  /// Share of the documents for validation, in [0, 1), one drawn by `seed` from each 1/fraction of them. Where plain
  /// files are whole documents and fewer than 1/fraction, each gives the end of its text instead. Not used where
  /// `validation_inputs` are given; 0: no validation.
  double validation_fraction = 0.01;
  uint64_t seed = 0;
  int64_t shard_tokens = 100'000'000;  ///< a shard ends with the document (or 256 KB piece of one) that reaches this
  int threads = 0;                     ///< 0: one for each processor. The output does not depend on it.
  bool overwrite = false;              ///< else a finished dataset in `out` is an Error
  std::function<void(const PrepareProgress&)> progress;  ///< called on the calling thread, about four times for each MB
};

/// Tokenizes a corpus into `out`: train_000000.llmz ..., val_000000.llmz ..., the tokenizer's files and, last,
/// dataset.json. Streams: memory is bounded by the number of threads, not by the corpus, a file or a document (but a
/// JSON line is held whole). Each document is [bos] text [eos], where the tokenizer has them.
///
/// Throws Error for inputs that name nothing, unreadable or malformed text (with file and line), an empty corpus, an
/// empty validation share, a full disk; the shards of the failed run are then removed.
Manifest prepare(const PrepareOptions& options, const text::Tokenizer& tokenizer);

/// The text that `prepare` would put on the training side: what a tokenizer may be trained on.
TextReader training_text(const PrepareOptions& options);

}  // namespace llmz::data
