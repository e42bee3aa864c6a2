#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace llmz::data {

/// One side of a prepared corpus.
struct SplitFacts {
  struct Shard {
    std::string file;  ///< name inside the folder
    int64_t tokens = 0;
  };
  std::vector<Shard> shards;
  int64_t tokens = 0;
  int64_t documents = 0;
  uint64_t text_bytes = 0;  ///< of original text (document ends and the like are tokens without text)
};

/// dataset.json of a folder that `llmz data prepare` wrote. It is written last: a folder without it is unfinished.
struct Manifest {
  std::string tokenizer_kind;
  int64_t vocab_size = 0;
  uint64_t tokenizer_hash = 0;
  SplitFacts train, validation;
  /// What a model reaches that knows how often each token occurs and nothing else: cross-entropy, in nats a token, of
  /// the validation tokens (the training tokens, where there is no validation) under p(t) = (train count + 1) / (train
  /// tokens + vocabulary).
  double unigram_entropy = 0;
  double unigram_perplexity = 0;  ///< exp(unigram_entropy)
};

constexpr const char* kManifestName = "dataset.json";

/// Throws Error when `folder` has no manifest or a damaged one.
Manifest read_manifest(const std::filesystem::path& folder);
/// Written aside, fsynced, renamed.
void write_manifest(const std::filesystem::path& folder, const Manifest& manifest);

}  // namespace llmz::data
