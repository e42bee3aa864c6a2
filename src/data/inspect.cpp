#include "llmz/data/inspect.h"

#include <algorithm>

#include "llmz/core/error.h"
#include "llmz/data/dataset.h"

namespace llmz::data {
namespace fs = std::filesystem;
namespace {

std::vector<std::string> shard_paths(const fs::path& where) {
  if (!fs::is_directory(where)) return {where.string()};
  std::vector<std::string> paths;
  for (const auto& entry : fs::directory_iterator(where)) {
    const fs::path extension = entry.path().extension();
    if (extension == ".llmz" || extension == ".bin") paths.push_back(entry.path().string());
  }
  check(!paths.empty(), "{}: no token shards (.llmz, .bin) in this folder", where.string());
  std::sort(paths.begin(), paths.end());
  return paths;
}

std::vector<uint64_t> count_ids(const Dataset& dataset) {
  std::vector<uint64_t> counts(static_cast<size_t>(dataset.vocab_size() > 0 ? dataset.vocab_size() : 65536));
  std::vector<int32_t> ids(size_t{1} << 16);
  for (int64_t done = 0; done < dataset.tokens();) {
    const auto part = std::span(ids).first(std::min<size_t>(ids.size(), static_cast<size_t>(dataset.tokens() - done)));
    dataset.read(done, part);
    for (const int32_t id : part) ++counts[static_cast<size_t>(id)];
    done += static_cast<int64_t>(part.size());
  }
  return counts;
}

void check_tokenizer(const Dataset& dataset, const text::Tokenizer& tokenizer) {
  check(dataset.tokenizer_hash() == 0 || dataset.tokenizer_hash() == tokenizer.hash(),
        "{}: made by another tokenizer (hash {:016x}) than the one given ({}, hash {:016x})",
        dataset.shards().front().path().string(), dataset.tokenizer_hash(), tokenizer.kind(), tokenizer.hash());
}

}  // namespace

Inspection inspect(const fs::path& where, const text::Tokenizer* tokenizer, const InspectOptions& options) {
  check(options.sample_start >= 0 && options.sample_tokens >= 0 && options.top >= 0,
        "sample start, sample length and number of top tokens must not be negative");
  const Dataset dataset = Dataset::open(shard_paths(where), Split::train);
  if (tokenizer != nullptr) check_tokenizer(dataset, *tokenizer);
  Inspection out;
  for (const ShardReader& shard : dataset.shards()) {
    if (options.verify) shard.verify();
    out.shards.push_back({shard.path(), shard.header()});
  }
  out.tokens = dataset.tokens();
  out.text_bytes = dataset.text_bytes();

  const std::vector<uint64_t> counts = count_ids(dataset);
  std::vector<int32_t> seen;
  for (size_t id = 0; id < counts.size(); ++id) {
    if (counts[id] > 0) seen.push_back(static_cast<int32_t>(id));
  }
  out.distinct_ids = static_cast<int64_t>(seen.size());
  std::stable_sort(seen.begin(), seen.end(), [&](int32_t a, int32_t b) {
    return counts[static_cast<size_t>(a)] > counts[static_cast<size_t>(b)];
  });
  seen.resize(std::min(seen.size(), static_cast<size_t>(options.top)));
  for (const int32_t id : seen) {
    out.top.push_back({id, counts[static_cast<size_t>(id)], tokenizer != nullptr ? tokenizer->token_text(id) : ""});
  }

  const int64_t start = std::min(options.sample_start, dataset.tokens());
  out.sample.resize(static_cast<size_t>(std::min(options.sample_tokens, dataset.tokens() - start)));
  dataset.read(start, out.sample);
  if (tokenizer != nullptr) out.sample_text = tokenizer->decode(out.sample);
  return out;
}

std::unique_ptr<text::Tokenizer> find_tokenizer(const fs::path& where) {
  const fs::path folder = fs::is_directory(where) ? where : where.parent_path();
  if (!fs::exists(folder / "llmz_tokenizer.json")) return nullptr;
  return text::load_tokenizer(folder);
}

}  // namespace llmz::data
