#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "llmz/config/fields.h"

namespace llmz::text {

/// Text to token ids and back. Immutable once made: every method may be called from several threads at once.
class Tokenizer {
 public:
  virtual ~Tokenizer();

  virtual std::string kind() const = 0;  ///< the name of its row in the registry: "bytes"
  virtual int64_t vocab_size() const = 0;
  /// Put before each document where present: SentencePiece's <s>; none for bytes and GPT-2.
  virtual std::optional<int32_t> bos() const = 0;
  /// Put after each document where present: SentencePiece's </s>, GPT-2's <|endoftext|>, 256 for bytes.
  virtual std::optional<int32_t> eos() const = 0;

  /// Appends the ids of `text` to `out`; adds neither bos nor eos, and reads no special token out of the text
  /// ("<|endoftext|>" in a document is ordinary characters). `text` may be any bytes: "bytes" and "gpt2" give back
  /// exactly these, SentencePiece replaces what is not UTF-8 by U+FFFD.
  virtual void encode(std::string_view text, std::vector<int32_t>& out) const = 0;
  /// The text of `ids`; bos and eos give nothing, except GPT-2's <|endoftext|>, which is shown. Throws Error for an id
  /// outside the vocabulary.
  virtual std::string decode(std::span<const int32_t> ids) const = 0;
  /// One token on one line, for inspection: "▁the", "Ġthe", "\n" as an escape. Throws Error as `decode` does.
  virtual std::string token_text(int32_t id) const = 0;

  /// Writes the tokenizer's files into `folder` (made if missing), so that `load_tokenizer(folder)` gives it back:
  /// llmz_tokenizer.json (kind and hash) for every kind, and the files that its row names, by the names that Hugging
  /// Face's tools look for: tokenizer.model for "sentencepiece", vocab.json + merges.txt for "gpt2".
  virtual void save(const std::filesystem::path& folder) const = 0;

  /// Identity of the tokenizer: equal for equal kind and vocabulary, kept by save and load. Token shards carry it.
  uint64_t hash() const { return hash_; }

 protected:
  explicit Tokenizer(uint64_t hash) : hash_(hash) {}
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

 private:
  uint64_t hash_;
};

/// Opens the tokenizer at `where`, which is one of
///   - the word "bytes" (256 bytes and a document end; needs no files; a folder of that name is "./bytes"),
///   - a folder written by `Tokenizer::save`, whose hash is checked,
///   - a SentencePiece model, as a *.model file or a folder with tokenizer.model,
///   - GPT-2's vocabulary and merges, as a folder with both or as one of the two files: encoder.json with vocab.bpe,
///     gpt2_encoder.json with gpt2_vocab.bpe, or vocab.json with merges.txt.
/// Throws Error, naming file and line, for files that are missing, truncated or contradict each other.
std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& where);

/// Gives the next piece of training text (a line, a document) in its argument; false when there is no more.
using TextSource = std::function<bool(std::string& text)>;

/// How a tokenizer is to be made from text.
struct TokenizerTraining {
  std::string kind;      ///< a name of the registry
  config::Bag settings;  ///< those of its row

  /// "8192": a vocabulary of that size, of the first kind that can be trained; "8192,max_sentences=1e6": with settings
  /// of its row; "8192,kind=NAME": of another kind. Throws Error that begins with `source`.
  static TokenizerTraining parse(const std::string& text, const std::string& source);
};

/// Makes it from `text`, which is read to its end. A file that it is loaded from stays in `folder`, which exists, for
/// as long as this takes. Throws Error when the text is too small for the vocabulary.
std::unique_ptr<Tokenizer> train_tokenizer(const TokenizerTraining& training, const TextSource& text,
                                           const std::filesystem::path& folder);

/// Every kind as the user of a command line names it: "bytes; train:VOCAB …; or where one is: …".
std::string tokenizer_choices();
/// The names of all files that `Tokenizer::save` may write.
std::vector<std::string> tokenizer_files();

/// What `train_sentencepiece` makes: a byte-pair vocabulary as LLaMA's (identity normalisation, digits split, unknown
/// characters as bytes, <unk> <s> </s> as ids 0 1 2).
struct SentencePieceTraining {
  TextSource text;                           ///< read once, to its end
  std::vector<std::filesystem::path> files;  ///< plain text, read line by line after `text`
  std::filesystem::path out_model;           ///< written when training succeeded; its folder must exist
  int64_t vocab_size = 32000;                ///< exact; includes the 3 special and 256 byte tokens
  /// Lines held in memory (a line is at most about 4 kB; longer ones are cut). Where the text has more, a uniform
  /// sample of this size is taken: always the same one for the same text.
  uint64_t max_sentences = 2'000'000;
};

/// Trains and writes `out_model`. Deterministic, on one thread; prints nothing. Throws Error when the text is too small
/// for the vocabulary, or the vocabulary for the text's characters.
void train_sentencepiece(const SentencePieceTraining& training);

}  // namespace llmz::text
