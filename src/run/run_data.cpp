#include "src/run/run_data.h"

#include <filesystem>

#include "llmz/core/error.h"
#include "llmz/data/manifest.h"

namespace llmz::run {
namespace {

/// The shards of one split: the listed ones, or those of data.path.
data::Dataset open_split(const DataConfig& config, const std::vector<std::string>& listed, const char* key,
                         data::Split split) {
  const bool from_path = listed.empty() && !config.path.empty();
  try {
    return data::Dataset::open(from_path ? std::vector<std::string>{config.path} : listed, split);
  } catch (const Error& e) {
    fail("{}: {}", from_path ? "data.path" : key, e.what());
  }
}

/// A dataset may have been prepared without a share for validation.
bool has_validation(const DataConfig& config) {
  if (!config.validation.empty()) return true;
  if (config.path.empty()) return false;
  const bool prepared = std::filesystem::exists(std::filesystem::path(config.path) / data::kManifestName);
  return !prepared || data::read_manifest(config.path).validation.tokens > 0;
}

void check_same_tokenizer(const data::Dataset& a, const data::Dataset& b) {
  const bool known = a.tokenizer_hash() != 0 && b.tokenizer_hash() != 0;
  check(!known || a.tokenizer_hash() == b.tokenizer_hash(),
        "data.train and data.validation were made with different tokenizers: prepare both with the same one");
}

}  // namespace

RunData::RunData(const RunConfig& config)
    : train(open_split(config.data, config.data.train, "data.train", data::Split::train)),
      loader(train, {.seed = config.train.seed,
                     .sequence_length = config.train.sequence,
                     .micro_batch = config.train.micro_batch,
                     .global_batch = config.train.global_batch}) {
  if (has_validation(config.data)) {
    validation = open_split(config.data, config.data.validation, "data.validation", data::Split::validation);
  }
  data::check_vocabulary(train, config.model.vocab_size);
  if (validation) data::check_vocabulary(*validation, config.model.vocab_size);
  if (validation) check_same_tokenizer(train, *validation);
  load_tokenizer(config.data, config.model.vocab_size);
}

void RunData::load_tokenizer(const DataConfig& config, int64_t model_vocab_size) {
  namespace fs = std::filesystem;
  std::string where = config.tokenizer;
  if (where.empty() && fs::exists(fs::path(config.path) / "llmz_tokenizer.json")) where = config.path;
  if (where.empty()) return;
  tokenizer = text::load_tokenizer(where);
  check(train.tokenizer_hash() == 0 || train.tokenizer_hash() == tokenizer->hash(),
        "the tokenizer {} is not the one that made the shards of {}: set data.tokenizer to the right one, or prepare "
        "the data again",
        where, config.path.empty() ? "data.train" : config.path);
  check(tokenizer->vocab_size() <= model_vocab_size,
        "the tokenizer {} has {} tokens and the model only {}: raise model.vocab_size", where, tokenizer->vocab_size(),
        model_vocab_size);
}

}  // namespace llmz::run
