#include <sentencepiece_processor.h>

#include <limits>

#include "llmz/core/error.h"
#include "llmz/io/files.h"
#include "src/text/sentencepiece_model.h"
#include "src/text/tokenizer_files.h"

namespace llmz::text {
namespace {

constexpr const char* kSentencePieceFile = "tokenizer.model";

uint64_t model_hash(std::string_view model) {
  Hasher hasher;
  hasher.add("sentencepiece");
  hasher.add(model);
  return hasher.value();
}

class SentencePieceTokenizer final : public Tokenizer {
 public:
  SentencePieceTokenizer(const std::string& name, std::string model)
      : Tokenizer(model_hash(model)), model_(std::move(model)) {
    bpe_ = SentencePieceBpe::make(read_sentencepiece_model(model_, name));
    const auto status = processor_.LoadFromSerializedProto(model_);
    check(status.ok(), "{}: is not a SentencePiece model: {}", name, sentencepiece_message(status.ToString()));
  }

  std::string kind() const override { return "sentencepiece"; }
  int64_t vocab_size() const override { return processor_.GetPieceSize(); }
  std::optional<int32_t> bos() const override { return present(processor_.bos_id()); }
  std::optional<int32_t> eos() const override { return present(processor_.eos_id()); }

  void encode(std::string_view text, std::vector<int32_t>& out) const override {
    if (bpe_) return bpe_->encode(text, out);
    check(text.size() <= kMaxBytes, "a document of {} bytes is too long for SentencePiece (at most {}); split it",
          text.size(), kMaxBytes);
    std::vector<int> ids;
    // Written out, since older releases bring a string_view of their own.
    const auto status = processor_.Encode({text.data(), text.size()}, &ids);
    check(status.ok(), "SentencePiece could not encode a document of {} bytes: {}", text.size(),
          sentencepiece_message(status.ToString()));
    out.insert(out.end(), ids.begin(), ids.end());
  }

  std::string decode(std::span<const int32_t> ids) const override {
    for (const int32_t id : ids) check_id(id);
    std::string text;
    const auto status = processor_.Decode(std::vector<int>(ids.begin(), ids.end()), &text);
    check(status.ok(), "SentencePiece could not decode {} ids: {}", ids.size(),
          sentencepiece_message(status.ToString()));
    return text;
  }

  std::string token_text(int32_t id) const override {
    check_id(id);
    return printable(processor_.IdToPiece(id));
  }

  void save(const std::filesystem::path& folder) const override {
    make_tokenizer_folder(folder);
    io::write_text(folder / kSentencePieceFile, model_);
    write_tokenizer_manifest(folder, *this);
  }

 private:
  /// The library counts in int, and normalisation may lengthen a text threefold (U+2581 for a space).
  static constexpr size_t kMaxBytes = std::numeric_limits<int>::max() / 4;

  static std::optional<int32_t> present(int id) { return id < 0 ? std::nullopt : std::optional<int32_t>(id); }

  void check_id(int32_t id) const {
    check(id >= 0 && id < processor_.GetPieceSize(), "token id {} is outside the vocabulary of {}", id,
          processor_.GetPieceSize());
  }

  std::string model_;  ///< the file, kept so that `save` gives it back byte for byte
  sentencepiece::SentencePieceProcessor processor_;
  std::unique_ptr<SentencePieceBpe> bpe_;  ///< where the model is of the kind it knows
};

std::unique_ptr<Tokenizer> open_model(const std::filesystem::path& model) {
  return std::make_unique<SentencePieceTokenizer>(model.string(), io::read_text(model));
}

std::unique_ptr<Tokenizer> load_sentencepiece(const std::filesystem::path& folder) {
  return open_model(folder / kSentencePieceFile);
}

std::unique_ptr<Tokenizer> find_sentencepiece(const std::filesystem::path& where) {
  if (!std::filesystem::is_directory(where)) return where.extension() == ".model" ? open_model(where) : nullptr;
  return std::filesystem::exists(where / kSentencePieceFile) ? load_sentencepiece(where) : nullptr;
}

/// Removes a file at the end, whatever came of it.
struct Removal {
  const std::filesystem::path& file;
  ~Removal() {
    std::error_code ignored;
    std::filesystem::remove(file, ignored);
  }
};

std::unique_ptr<Tokenizer> trained_sentencepiece(const config::Bag& settings, const TextSource& text,
                                                 const std::filesystem::path& folder) {
  // Aside: what is in the folder already stays whole until the new tokenizer is.
  const std::filesystem::path aside = folder / "training.tokenizer.model";
  const Removal removal{aside};
  SentencePieceTraining training = settings.get<SentencePieceTraining>();
  training.text = text;
  training.out_model = aside;
  train_sentencepiece(training);
  return open_model(aside);
}

config::Fields<config::Bag> sentencepiece_fields() {
  using S = SentencePieceTraining;
  return config::in_bag(
      config::Fields<S>()
          .key("vocab_size", &S::vocab_size, "tokens, the special and byte ones included", config::at_least(1))
          .key("max_sentences", &S::max_sentences,
               "lines held in memory; of a longer text a uniform sample of as many is taken", config::at_least(1)));
}

constexpr const char* kSavedFiles[] = {kSentencePieceFile};

}  // namespace

extern const TokenizerRow kSentencePieceTokenizer;
const TokenizerRow kSentencePieceTokenizer = {.name = "sentencepiece",
                                              .files = "tokenizer.model or another *.model (SentencePiece)",
                                              .saved = kSavedFiles,
                                              .load = load_sentencepiece,
                                              .find = find_sentencepiece,
                                              .train = trained_sentencepiece,
                                              .fields = sentencepiece_fields};

}  // namespace llmz::text
