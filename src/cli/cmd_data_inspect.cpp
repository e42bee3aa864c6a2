#include <memory>
#include <nlohmann/json.hpp>

#include "llmz/core/error.h"
#include "llmz/data/inspect.h"
#include "src/cli/commands.h"

namespace llmz::cli {
namespace {

using Json = nlohmann::ordered_json;

struct DataInspectOptions {
  std::string where, tokenizer;
  data::InspectOptions inspect;
  bool json = false;
};

const char* format_name(const data::ShardHeader& header) {
  return header.format == data::ShardHeader::Format::llmz ? "llmz" : "llm.c";
}

std::string hash_text(uint64_t hash) { return hash == 0 ? "" : fmt::format("{:016x}", hash); }

/// Text of a sample may end within a character, and of a "bytes" corpus be no UTF-8 at all.
std::string dump(const Json& json) { return json.dump(2, ' ', false, Json::error_handler_t::replace); }

void print_dataset_json(const data::Inspection& found, const text::Tokenizer* tokenizer) {
  Json shards = Json::array();
  for (const auto& [path, header] : found.shards) {
    shards.push_back({{"path", path.string()},
                      {"format", format_name(header)},
                      {"tokens", header.tokens},
                      {"bytes_per_id", header.bytes_per_id},
                      {"vocab_size", header.vocab_size},
                      {"tokenizer_hash", hash_text(header.tokenizer_hash)},
                      {"text_bytes", header.text_bytes},
                      {"payload_crc32", header.payload_crc}});
  }
  Json top = Json::array();
  for (const auto& [id, count, text] : found.top) top.push_back({{"id", id}, {"count", count}, {"text", text}});
  const Json json = {{"tokens", found.tokens},
                     {"text_bytes", found.text_bytes},
                     {"distinct_ids", found.distinct_ids},
                     {"tokenizer", tokenizer != nullptr ? tokenizer->kind() : ""},
                     {"shards", shards},
                     {"most_frequent", top},
                     {"sample", found.sample},
                     {"sample_text", found.sample_text}};
  fmt::print("{}\n", dump(json));
}

void print_dataset(const data::Inspection& found, const text::Tokenizer* tokenizer, int64_t sample_start) {
  for (const auto& [path, header] : found.shards) {
    fmt::print("{}: {} format, {} tokens of {} bytes", path.string(), format_name(header), header.tokens,
               header.bytes_per_id);
    if (header.vocab_size > 0) fmt::print(", vocabulary {}", header.vocab_size);
    if (header.tokenizer_hash != 0) fmt::print(", tokenizer {}", hash_text(header.tokenizer_hash));
    if (header.payload_crc != 0) fmt::print(", checksum {:08x}", header.payload_crc);
    fmt::print("\n");
  }
  fmt::print("{} tokens, {} distinct", found.tokens, found.distinct_ids);
  if (found.text_bytes > 0) {
    fmt::print(", {} bytes of text: {:.3f} bytes a token", found.text_bytes,
               static_cast<double>(found.text_bytes) / static_cast<double>(found.tokens));
  }
  fmt::print("\nmost frequent:\n");
  for (const auto& [id, count, text] : found.top) {
    fmt::print("  {:>6}  {:>12}  {:6.2f} %  {}\n", id, count,
               100 * static_cast<double>(count) / static_cast<double>(found.tokens), text);
  }
  const auto end = sample_start + static_cast<int64_t>(found.sample.size());
  if (tokenizer != nullptr) {
    fmt::print("tokens {} to {} ({} tokenizer):\n{}\n", sample_start, end, tokenizer->kind(), found.sample_text);
  } else {
    fmt::print("tokens {} to {} (no tokenizer beside the shards; --tokenizer names one):\n{}\n", sample_start, end,
               fmt::join(found.sample, " "));
  }
}

int inspect(const DataInspectOptions& options) {
  const auto tokenizer =
      options.tokenizer.empty() ? data::find_tokenizer(options.where) : text::load_tokenizer(options.tokenizer);
  const data::Inspection found = data::inspect(options.where, tokenizer.get(), options.inspect);
  if (options.json) {
    print_dataset_json(found, tokenizer.get());
  } else {
    print_dataset(found, tokenizer.get(), options.inspect.sample_start);
  }
  return 0;
}

}  // namespace

Command add_data_inspect(CLI::App& data) {
  auto options = std::make_shared<DataInspectOptions>();
  CLI::App* parser = data.add_subcommand("inspect", "Check shards, show their headers and some of their text");
  parser->add_option("SHARD", options->where, "Shard file (.llmz, or llm.c's .bin), or a folder of them")->required();
  parser->add_option("--tokenizer", options->tokenizer, "Where the tokenizer is, unless it lies beside the shards");
  parser->add_option("--sample-start", options->inspect.sample_start, "First token of the sample")
      ->check(at_least(0))
      ->capture_default_str();
  parser->add_option("--sample-tokens", options->inspect.sample_tokens, "Length of the sample")
      ->check(at_least(0))
      ->capture_default_str();
  parser->add_option("--top", options->inspect.top, "How many of the most frequent tokens to list")
      ->check(at_least(0))
      ->capture_default_str();
  parser->add_flag("--json", options->json, "Print JSON");
  set_example(*parser, "llmz data inspect data/books/train_000000.llmz --sample-start 1000 --sample-tokens 50");
  return {parser, [options] { return inspect(*options); }};
}

}  // namespace llmz::cli
