#include "llmz/data/manifest.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "llmz/core/error.h"
#include "llmz/io/files.h"

namespace llmz::data {
namespace {

using nlohmann::ordered_json;

constexpr int kVersion = 1;

ordered_json to_json(const SplitFacts& split) {
  ordered_json shards = ordered_json::array();
  for (const auto& shard : split.shards) shards.push_back({{"file", shard.file}, {"tokens", shard.tokens}});
  return {{"tokens", split.tokens},
          {"documents", split.documents},
          {"text_bytes", split.text_bytes},
          {"shards", std::move(shards)}};
}

SplitFacts split_from(const ordered_json& from) {
  SplitFacts split;
  split.tokens = from.at("tokens");
  split.documents = from.at("documents");
  split.text_bytes = from.at("text_bytes");
  for (const auto& shard : from.at("shards")) split.shards.push_back({shard.at("file"), shard.at("tokens")});
  return split;
}

}  // namespace

Manifest read_manifest(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / kManifestName;
  std::ifstream file(path);
  check(file.good(), "{}: no {} in this folder: `llmz data prepare` has not run or not finished there", folder.string(),
        kManifestName);
  try {
    const ordered_json from = ordered_json::parse(file);
    const int version = from.at("version");
    check(version == kVersion, "{}: version {}; this llmz reads version {}", path.string(), version, kVersion);
    Manifest manifest;
    const auto& tokenizer = from.at("tokenizer");
    manifest.tokenizer_kind = tokenizer.at("kind");
    manifest.vocab_size = tokenizer.at("vocab_size");
    manifest.tokenizer_hash = std::stoull(tokenizer.at("hash").get<std::string>(), nullptr, 16);
    manifest.train = split_from(from.at("train"));
    manifest.validation = split_from(from.at("validation"));
    manifest.unigram_entropy = from.at("unigram_entropy");
    manifest.unigram_perplexity = from.at("unigram_perplexity");
    return manifest;
  } catch (const nlohmann::json::exception& error) {
    fail("{}: damaged ({}); prepare the data again", path.string(), error.what());
  } catch (const std::logic_error&) {  // from stoull
    fail("{}: damaged (tokenizer hash); prepare the data again", path.string());
  }
}

void write_manifest(const std::filesystem::path& folder, const Manifest& manifest) {
  const ordered_json out = {{"version", kVersion},
                            {"tokenizer",
                             {{"kind", manifest.tokenizer_kind},
                              {"vocab_size", manifest.vocab_size},
                              {"hash", fmt::format("{:016x}", manifest.tokenizer_hash)}}},
                            {"train", to_json(manifest.train)},
                            {"validation", to_json(manifest.validation)},
                            {"unigram_entropy", manifest.unigram_entropy},
                            {"unigram_perplexity", manifest.unigram_perplexity}};
  io::write_text(folder / kManifestName, out.dump(2) + "\n");
}

}  // namespace llmz::data
