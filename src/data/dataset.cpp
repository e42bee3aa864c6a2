#include "llmz/data/dataset.h"

#include <glob.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "llmz/core/error.h"
#include "llmz/data/manifest.h"

namespace llmz::data {
namespace fs = std::filesystem;
namespace {

std::vector<fs::path> prepared_shards(const fs::path& folder, Split split) {
  const Manifest manifest = read_manifest(folder);
  const SplitFacts& facts = split == Split::train ? manifest.train : manifest.validation;
  check(!facts.shards.empty(), "{}: this dataset has no {} tokens; prepare it with a validation share", folder.string(),
        splits().name(split));
  std::vector<fs::path> shards;
  for (const auto& shard : facts.shards) {
    shards.push_back(folder / shard.file);
    check(fs::exists(shards.back()), "{}: this shard is missing, though {} lists it; prepare or copy the data again",
          shards.back().string(), kManifestName);
  }
  return shards;
}

constexpr std::string_view kRemedy =
    "; name one that is there, or make one: `llmz data prepare --input TEXT --tokenizer train:8192 --out FOLDER`";

std::vector<fs::path> folder_shards(const fs::path& folder, Split split) {
  const std::string split_name = splits().name(split);
  bool prepared = fs::exists(folder / kManifestName);
  std::vector<fs::path> llmc;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    prepared = prepared || entry.path().extension() == ".llmz";
    if (entry.path().extension() == ".bin" && name.find("_" + split_name) != std::string::npos)
      llmc.push_back(entry.path());
  }
  if (prepared) return prepared_shards(folder, split);
  check(!llmc.empty(), "{}: neither a prepared dataset nor llm.c shards named *_{}*.bin in this folder{}",
        folder.string(), split_name, kRemedy);
  std::sort(llmc.begin(), llmc.end());
  return llmc;
}

std::vector<fs::path> named_shards(const std::string& input, Split split) {
  if (fs::is_directory(input)) return folder_shards(input, split);
  if (fs::exists(input)) return {input};
  check(input.find_first_of("*?[") != std::string::npos, "{}: no such shard or folder{}", input, kRemedy);
  glob_t found{};
  const int result = ::glob(input.c_str(), 0, nullptr, &found);
  std::vector<fs::path> shards;
  if (result == 0) shards.assign(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  ::globfree(&found);
  check(!shards.empty(), "{}: no shard matches this pattern{}", input, kRemedy);
  return shards;
}

}  // namespace

const config::Names<Split>& splits() {
  static const config::Names<Split> names = {{"train", Split::train}, {"val", Split::validation}};
  return names;
}

Dataset::Dataset(std::vector<ShardReader> shards) : shards_(std::move(shards)), starts_{0} {
  for (const ShardReader& shard : shards_) starts_.push_back(starts_.back() + shard.tokens());
}

Dataset Dataset::open(std::span<const std::string> inputs, Split split) {
  check(!inputs.empty(), "no {} data named", splits().name(split));
  std::vector<ShardReader> shards;
  for (const std::string& input : inputs) {
    try {
      for (const fs::path& path : named_shards(input, split)) shards.push_back(ShardReader::open(path));
    } catch (const fs::filesystem_error& error) {
      fail("cannot look through {}: {}", input, error.code().message());
    }
  }
  const ShardReader& first = shards.front();
  for (const ShardReader& shard : shards) {
    check(shard.tokenizer_hash() == first.tokenizer_hash() && shard.vocab_size() == first.vocab_size(),
          "{} and {} were made by different tokenizers (vocabulary {}, hash {:016x}; vocabulary {}, hash {:016x}; 0 is "
          "unknown): their ids mean different things, so they cannot be mixed",
          first.path().string(), shard.path().string(), first.vocab_size(), first.tokenizer_hash(), shard.vocab_size(),
          shard.tokenizer_hash());
  }
  return Dataset(std::move(shards));
}

uint64_t Dataset::text_bytes() const {
  uint64_t sum = 0;
  for (const ShardReader& shard : shards_) {
    if (shard.text_bytes() == 0) return 0;
    sum += shard.text_bytes();
  }
  return sum;
}

void Dataset::read(int64_t first, std::span<int32_t> out) const {
  const auto count = static_cast<int64_t>(out.size());
  check(first >= 0 && first <= tokens() && count <= tokens() - first, "tokens {} to {} asked for, the dataset has {}",
        first, first + count, tokens());
  auto shard = static_cast<size_t>(std::upper_bound(starts_.begin(), starts_.end(), first) - starts_.begin()) - 1;
  while (!out.empty()) {
    const auto part = std::min<size_t>(out.size(), static_cast<size_t>(starts_[shard + 1] - first));
    shards_[shard].read(first - starts_[shard], out.first(part), id_bound_);
    first += static_cast<int64_t>(part);
    out = out.subspan(part);
    ++shard;
  }
}

void check_vocabulary(Dataset& dataset, int64_t model_vocab_size) {
  const std::string name = dataset.shards().front().path().string();
  check(dataset.vocab_size() <= model_vocab_size,
        "the tokens in {} have a vocabulary of {}, the model one of {}: set the model's vocab_size to at least {}, or "
        "prepare the data with the model's tokenizer",
        name, dataset.vocab_size(), model_vocab_size, dataset.vocab_size());
  if (dataset.vocab_size() > 0) return;
  constexpr int64_t kProbe = 1'000'000;
  std::vector<int32_t> ids(static_cast<size_t>(std::min(kProbe, dataset.tokens())));
  dataset.read(0, ids);
  const int32_t largest = ids.empty() ? 0 : *std::max_element(ids.begin(), ids.end());
  check(
      largest < model_vocab_size,
      "the tokens in {} go up to id {} at least, the model has a vocabulary of {}: set the model's vocab_size to that "
      "of the tokenizer that made them (GPT-2: 50257)",
      name, largest, model_vocab_size);
  dataset.limit_ids(model_vocab_size);
}

}  // namespace llmz::data
