#include "src/text/gpt2_tokenizer.h"

#include <array>
#include <filesystem>
#include <utility>

#include "llmz/core/error.h"
#include "src/text/pair_merger.h"
#include "src/text/tokenizer_files.h"

namespace llmz::text {
namespace {

/// Names under which GPT-2's vocabulary and merges go about: Hugging Face's, OpenAI's, the same with a prefix.
constexpr std::array<std::pair<const char*, const char*>, 3> kGpt2Files = {{
    {"vocab.json", "merges.txt"},
    {"encoder.json", "vocab.bpe"},
    {"gpt2_encoder.json", "gpt2_vocab.bpe"},
}};

uint64_t vocabulary_hash(const Gpt2Vocabulary& vocabulary) {
  Hasher hasher;
  hasher.add("gpt2");
  for (const auto& token : vocabulary.spelling) hasher.add(token);
  for (const auto& merge : vocabulary.merges) {
    hasher.add(vocabulary.spelling[merge.left]);
    hasher.add(vocabulary.spelling[merge.right]);
  }
  return hasher.value();
}

MergeTable merge_table(const Gpt2Vocabulary& vocabulary) {
  MergeTable table(vocabulary.merges.size());
  uint32_t rank = 0;
  for (const auto& merge : vocabulary.merges) table.add(merge.left, merge.right, {rank++, merge.result});
  return table;
}

class Gpt2Tokenizer final : public Tokenizer {
 public:
  explicit Gpt2Tokenizer(Gpt2Vocabulary vocabulary)
      : Tokenizer(vocabulary_hash(vocabulary)),
        vocabulary_(std::move(vocabulary)),
        merges_(merge_table(vocabulary_)),
        words_(vocabulary_.bytes) {
    // Not every token is what its own text is merged into; those that are need no merging at all.
    PairMerger merger(merges_);
    std::vector<int32_t> symbols, ids;
    for (int32_t id = 0; id < static_cast<int32_t>(vocabulary_.bytes.size()); ++id) {
      ids.clear();
      byte_symbols(vocabulary_.bytes[id], symbols);
      merger.merge(symbols, ids);
      if (ids.size() == 1 && ids[0] == id) words_.add(id);
    }
  }

  std::string kind() const override { return "gpt2"; }
  int64_t vocab_size() const override { return static_cast<int64_t>(vocabulary_.bytes.size()); }
  std::optional<int32_t> bos() const override { return std::nullopt; }
  std::optional<int32_t> eos() const override { return vocabulary_.end_of_text; }

  void encode(std::string_view text, std::vector<int32_t>& out) const override {
    Gpt2Splitter::Words words(splitter_, text);
    PairMerger merger(merges_);
    std::vector<int32_t> symbols;
    for (std::string_view word; words.next(word);) {
      const int32_t id = words_.find(word);
      if (id >= 0) {
        out.push_back(id);
        continue;
      }
      byte_symbols(word, symbols);
      merger.merge(symbols, out);
    }
  }

  std::string decode(std::span<const int32_t> ids) const override {
    std::string text;
    for (const int32_t id : ids) {
      check_id(id);
      text += vocabulary_.bytes[id];
    }
    return text;
  }

  std::string token_text(int32_t id) const override {
    check_id(id);
    return printable(vocabulary_.spelling[id]);
  }

  void save(const std::filesystem::path& folder) const override {
    make_tokenizer_folder(folder);
    write_gpt2_vocabulary(vocabulary_, folder);
    write_tokenizer_manifest(folder, *this);
  }

 private:
  void byte_symbols(std::string_view word, std::vector<int32_t>& symbols) const {
    symbols.resize(word.size());
    for (size_t i = 0; i < word.size(); ++i) symbols[i] = vocabulary_.byte_ids[static_cast<unsigned char>(word[i])];
  }

  void check_id(int32_t id) const {
    check(id >= 0 && id < vocab_size(), "token id {} is outside the vocabulary of {}", id, vocab_size());
  }

  Gpt2Vocabulary vocabulary_;
  MergeTable merges_;
  WordTable words_;
  Gpt2Splitter splitter_;
};

std::unique_ptr<Tokenizer> open_files(const std::filesystem::path& vocab, const std::filesystem::path& merges) {
  return std::make_unique<Gpt2Tokenizer>(read_gpt2_vocabulary(vocab, merges));
}

std::unique_ptr<Tokenizer> load_gpt2(const std::filesystem::path& folder) {
  return open_files(folder / kGpt2Files[0].first, folder / kGpt2Files[0].second);
}

std::unique_ptr<Tokenizer> find_gpt2(const std::filesystem::path& where) {
  const bool in_folder = std::filesystem::is_directory(where);
  const std::filesystem::path folder = in_folder ? where : where.parent_path();
  for (const auto& [vocab, merges] : kGpt2Files) {
    const bool named = in_folder ? std::filesystem::exists(folder / vocab) || std::filesystem::exists(folder / merges)
                                 : where.filename() == vocab || where.filename() == merges;
    if (named) return open_files(folder / vocab, folder / merges);
  }
  return nullptr;
}

constexpr const char* kGpt2Saved[] = {kGpt2Files[0].first, kGpt2Files[0].second};

}  // namespace

extern const TokenizerRow kGpt2Tokenizer;
const TokenizerRow kGpt2Tokenizer = {.name = "gpt2",
                                     .files = "vocab.json with merges.txt, or encoder.json with vocab.bpe (GPT-2)",
                                     .saved = kGpt2Saved,
                                     .load = load_gpt2,
                                     .find = find_gpt2};

}  // namespace llmz::text
