#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "llmz/data/shard.h"
#include "llmz/text/tokenizer.h"

namespace llmz::data {

struct InspectOptions {
  int64_t sample_start = 0;     ///< first token of the sample, counted over all shards
  int64_t sample_tokens = 128;  ///< shortened where the shards end sooner
  int top = 10;                 ///< how many of the most frequent ids
  bool verify = true;           ///< checksum and every id of every shard
};

struct Inspection {
  struct Shard {
    std::filesystem::path path;
    ShardHeader header;
  };
  struct Count {
    int32_t id = 0;
    uint64_t count = 0;
    std::string text;  ///< Tokenizer::token_text; empty without a tokenizer
  };
  std::vector<Shard> shards;
  int64_t tokens = 0;
  uint64_t text_bytes = 0;
  int64_t distinct_ids = 0;
  std::vector<Count> top;  ///< most frequent first
  std::vector<int32_t> sample;
  std::string sample_text;  ///< decoded; empty without a tokenizer
};

/// What is in a shard, or in all shards (.llmz, .bin) of a folder, sorted by name. Reads every token. `tokenizer` may
/// be null; `find_tokenizer` finds the one that prepare put beside the shards. Throws Error for damaged shards, a
/// folder without shards, a tokenizer other than the shards'.
Inspection inspect(const std::filesystem::path& shard_or_folder, const text::Tokenizer* tokenizer,
                   const InspectOptions& options = {});

/// The tokenizer in the folder of a shard (or in the folder itself); null where there is none.
std::unique_ptr<text::Tokenizer> find_tokenizer(const std::filesystem::path& shard_or_folder);

}  // namespace llmz::data
