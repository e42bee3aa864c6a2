#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "llmz/config/fields.h"
#include "llmz/data/shard.h"

namespace llmz::data {

/// What of a prepared dataset: "train" or "val".
enum class Split : uint8_t { train, validation };
const config::Names<Split>& splits();

/// Token shards one after the other, read as a single row of tokens. Const methods are thread-safe.
class Dataset {
 public:
  /// `inputs`: folders, shard files, patterns with * ? [ ]. Of a folder written by `llmz data prepare` the shards of
  /// `split` are taken, as its manifest lists them; of a folder without .llmz files the llm.c shards
  /// with "_train" or "_val" in their name. Files and what patterns match are taken as they are, sorted within a
  /// pattern.
  ///
  /// Throws Error for an input that names nothing, an unfinished preparation, a missing, truncated or foreign shard, no
  /// shard of this split, and shards made by different tokenizers.
  static Dataset open(std::span<const std::string> inputs, Split split);

  int64_t tokens() const { return starts_.back(); }
  int64_t vocab_size() const { return shards_.front().vocab_size(); }           ///< 0: not known (llm.c shards)
  uint64_t tokenizer_hash() const { return shards_.front().tokenizer_hash(); }  ///< 0: not known
  uint64_t text_bytes() const;  ///< of original text; 0 where a shard does not know
  const std::vector<ShardReader>& shards() const { return shards_; }

  /// out[i] = token `first + i`. Throws Error past the end, and for an id outside the vocabulary (file, position, id).
  void read(int64_t first, std::span<int32_t> out) const;

  /// From now on `read` also refuses ids that are not below `bound`.
  void limit_ids(int64_t bound) { id_bound_ = bound; }

 private:
  explicit Dataset(std::vector<ShardReader> shards);
  std::vector<ShardReader> shards_;
  std::vector<int64_t> starts_;  // first token of each shard; one more entry: the total
  int64_t id_bound_ = 0;
};

/// Throws Error, naming both numbers, unless a model of `model_vocab_size` can take every id of `dataset`: to be called
/// before the first step. Where the shards do not state their vocabulary (llm.c), their first million tokens are
/// looked at, and every later read is checked too.
void check_vocabulary(Dataset& dataset, int64_t model_vocab_size);

}  // namespace llmz::data
