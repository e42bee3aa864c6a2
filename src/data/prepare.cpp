#include "llmz/data/prepare.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <optional>
#include <set>
#include <thread>
#include <utility>

#include "llmz/core/error.h"
#include "llmz/data/shard.h"
#include "src/data/block_reader.h"
#include "src/data/ordered_pipeline.h"

namespace llmz::data {
namespace fs = std::filesystem;
namespace {

/// The ids of one block, and where its pieces end in them.
struct EncodedBlock {
  struct Piece {
    size_t ids_end = 0;
    uint64_t text_bytes = 0;
    bool validation = false, ends_document = false;
  };
  std::vector<int32_t> ids;
  std::vector<Piece> pieces;
};

EncodedBlock encode_block(const text::Tokenizer& tokenizer, const TextFile& file, const TextBlock& block,
                          const TextOptions& options) {
  EncodedBlock out;
  out.ids.reserve(block.bytes.size() / 3);
  for (const TextPiece& piece : block.pieces) {
    const std::string text = piece_text(file, block, piece, options);
    if (text.empty() && piece.starts_document) continue;
    if (piece.starts_document && tokenizer.bos()) out.ids.push_back(*tokenizer.bos());
    for (std::string_view rest = text; !rest.empty();) {
      const size_t part = rest.size() <= kPieceBytes ? rest.size() : find_cut(rest, kPieceBytes);
      tokenizer.encode(rest.substr(0, part), out.ids);
      rest.remove_prefix(part);
    }
    if (piece.ends_document && tokenizer.eos()) out.ids.push_back(*tokenizer.eos());
    out.pieces.push_back({out.ids.size(), text.size(), piece.validation, piece.ends_document});
  }
  return out;
}

/// Writes one side of the corpus: shards in a row, facts, token counts.
class SplitWriter {
 public:
  SplitWriter(fs::path folder, std::string name, const text::Tokenizer& tokenizer, int64_t shard_tokens)
      : folder_(std::move(folder)),
        name_(std::move(name)),
        vocab_size_(tokenizer.vocab_size()),
        tokenizer_hash_(tokenizer.hash()),
        shard_tokens_(shard_tokens),
        counts_(static_cast<size_t>(vocab_size_)) {}

  void append(std::span<const int32_t> ids, uint64_t text_bytes, bool ends_document) {
    if (!shard_) {
      const std::string file = fmt::format("{}_{:06d}.llmz", name_, facts_.shards.size());
      facts_.shards.push_back({file, 0});
      shard_.emplace(folder_ / file, vocab_size_, tokenizer_hash_);
    }
    shard_->append(ids, text_bytes);
    for (const int32_t id : ids) ++counts_[static_cast<size_t>(id)];
    facts_.tokens += static_cast<int64_t>(ids.size());
    facts_.text_bytes += text_bytes;
    facts_.documents += ends_document ? 1 : 0;
    if (shard_->tokens() >= shard_tokens_) finish_shard();
  }

  void finish_shard() {
    if (!shard_) return;
    facts_.shards.back().tokens = shard_->tokens();
    shard_->finish();
    shard_.reset();
  }

  const SplitFacts& facts() const { return facts_; }
  const std::vector<uint64_t>& counts() const { return counts_; }

 private:
  fs::path folder_;
  std::string name_;
  int64_t vocab_size_;
  uint64_t tokenizer_hash_;
  int64_t shard_tokens_;
  std::optional<ShardWriter> shard_;
  SplitFacts facts_;
  std::vector<uint64_t> counts_;
};

/// The inputs in reading order: what is divided or trained on, then what is validation as a whole.
struct Inputs {
  std::vector<TextFile> files;
  SplitOptions split;
  uint64_t bytes = 0;
};

Inputs find_inputs(const PrepareOptions& options) {
  check(!options.inputs.empty(), "no input texts named");
  Inputs inputs;
  inputs.files = find_text_files(options.inputs);
  inputs.split.seed = options.seed;
  inputs.split.fraction = options.validation_fraction;
  if (!options.validation_inputs.empty()) {
    const std::vector<TextFile> validation = find_text_files(options.validation_inputs);
    std::set<fs::path> held_out;
    for (const TextFile& file : validation) held_out.insert(fs::weakly_canonical(file.path));
    std::erase_if(inputs.files, [&](const TextFile& f) { return held_out.contains(fs::weakly_canonical(f.path)); });
    check(!inputs.files.empty(), "all input texts are named as validation texts too; nothing is left to train on");
    inputs.split.fraction = 0;
    inputs.split.first_validation_file = inputs.files.size();
    inputs.files.insert(inputs.files.end(), validation.begin(), validation.end());
  }
  for (const TextFile& file : inputs.files) inputs.bytes += file.bytes;
  return inputs;
}

/// Whether `name` is one that SplitWriter gives: train_000000.llmz, or with .tmp while it is written.
bool is_shard_name(std::string_view name) {
  const auto drop = [&](std::string_view end) {
    const bool there = name.ends_with(end);
    if (there) name.remove_suffix(end.size());
    return there;
  };
  drop(".tmp");
  if (!drop(".llmz")) return false;
  const size_t digits = name.find('_') + 1;
  const std::string_view split = name.substr(0, digits), number = name.substr(digits);
  return (split == "train_" || split == "val_") && number.size() >= 6 &&
         number.find_first_not_of("0123456789") == std::string_view::npos;
}

/// Shards and manifest of an earlier run, finished or not; nothing else is touched.
void remove_dataset(const fs::path& folder) {
  fs::remove(folder / kManifestName);  // first: what is left then counts as unfinished
  std::vector<fs::path> shards;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (is_shard_name(entry.path().filename().string())) shards.push_back(entry.path());
  }
  for (const fs::path& shard : shards) fs::remove(shard);
}

void make_ready(const PrepareOptions& options) {
  check(!options.out.empty(), "no output folder named");
  try {
    fs::create_directories(options.out);
    check(options.overwrite || !fs::exists(options.out / kManifestName),
          "{}: a prepared dataset is there already; name another folder, or ask for it to be overwritten",
          options.out.string());
    remove_dataset(options.out);
  } catch (const fs::filesystem_error& error) {
    fail("cannot make the output folder {}: {}", options.out.string(), error.code().message());
  }
}

double unigram_entropy(const SplitWriter& train, const SplitWriter& scored) {
  const auto vocabulary = static_cast<double>(train.counts().size());
  const double total = static_cast<double>(train.facts().tokens) + vocabulary;
  double nats = 0;
  for (size_t id = 0; id < train.counts().size(); ++id) {
    if (scored.counts()[id] == 0) continue;
    nats -= static_cast<double>(scored.counts()[id]) * std::log((static_cast<double>(train.counts()[id]) + 1) / total);
  }
  return nats / static_cast<double>(scored.facts().tokens);
}

void check_not_empty(const SplitFacts& train, const SplitFacts& validation, bool validation_wanted) {
  check(train.tokens + validation.tokens > 0, "the input texts are empty: no document in any of them");
  check(train.tokens > 0, "no text is left to train on: all {} documents are validation; lower the validation fraction",
        validation.documents);
  check(!validation_wanted || validation.tokens > 0,
        "no document fell to validation: the corpus has only {}; raise the validation fraction, name validation texts, "
        "or ask for none (fraction 0)",
        train.documents);
}

Manifest write_dataset(const PrepareOptions& options, const text::Tokenizer& tokenizer, Inputs inputs) {
  const bool validation_wanted = inputs.split.fraction > 0 || inputs.split.first_validation_file != SIZE_MAX;
  const unsigned processors = std::max(1u, std::thread::hardware_concurrency());
  const int threads = options.threads > 0 ? options.threads : static_cast<int>(processors);
  tokenizer.save(options.out);
  BlockReader reader(std::move(inputs.files), options.text, inputs.split);
  SplitWriter train(options.out, "train", tokenizer, options.shard_tokens);
  SplitWriter validation(options.out, "val", tokenizer, options.shard_tokens);
  std::atomic<uint64_t> consumed = 0;
  const auto read = [&] {
    auto block = reader.next();
    consumed = reader.consumed();
    return block;
  };
  const auto encode = [&](TextBlock& block) {
    return encode_block(tokenizer, reader.files()[block.file], block, options.text);
  };
  const auto write = [&](EncodedBlock& block) {
    size_t begin = 0;
    for (const EncodedBlock::Piece& piece : block.pieces) {
      SplitWriter& to = piece.validation ? validation : train;
      to.append(std::span(block.ids).subspan(begin, piece.ids_end - begin), piece.text_bytes, piece.ends_document);
      begin = piece.ids_end;
    }
    if (!options.progress) return;
    const SplitFacts &t = train.facts(), &v = validation.facts();
    options.progress(
        {consumed, inputs.bytes, t.text_bytes + v.text_bytes, t.tokens + v.tokens, t.documents + v.documents});
  };
  OrderedPipeline<TextBlock, EncodedBlock>(threads, read, encode).run(write);

  check_not_empty(train.facts(), validation.facts(), validation_wanted);
  train.finish_shard();
  validation.finish_shard();
  Manifest manifest{
      tokenizer.kind(), tokenizer.vocab_size(), tokenizer.hash(), train.facts(), validation.facts(), 0, 0};
  manifest.unigram_entropy = unigram_entropy(train, validation_wanted ? validation : train);
  manifest.unigram_perplexity = std::exp(manifest.unigram_entropy);
  write_manifest(options.out, manifest);
  return manifest;
}

}  // namespace

Manifest prepare(const PrepareOptions& options, const text::Tokenizer& tokenizer) {
  check(options.shard_tokens > 0, "a shard must hold at least one token, got {}", options.shard_tokens);
  check(options.threads >= 0 && options.threads <= 1024, "the number of threads must be from 0 to 1024, got {}",
        options.threads);
  Inputs inputs = find_inputs(options);
  make_ready(options);
  try {
    return write_dataset(options, tokenizer, std::move(inputs));
  } catch (...) {
    try {
      remove_dataset(options.out);
    } catch (const fs::filesystem_error&) {
      // The first error is the one to report.
    }
    throw;
  }
}

TextReader training_text(const PrepareOptions& options) {
  Inputs inputs = find_inputs(options);
  return TextReader(std::move(inputs.files), options.text, inputs.split);
}

}  // namespace llmz::data
