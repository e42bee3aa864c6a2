#include "llmz/text/tokenizer.h"

#include <array>
#include <utility>

#include "llmz/core/error.h"
#include "src/text/tokenizer_files.h"

namespace llmz::data {
namespace {

namespace fs = std::filesystem;

/// Names under which GPT-2's vocabulary and merges go about: OpenAI's, the same with a prefix, Hugging Face's.
constexpr std::array<std::pair<const char*, const char*>, 3> kGpt2Files = {{
    {"vocab.json", "merges.txt"},
    {"encoder.json", "vocab.bpe"},
    {"gpt2_encoder.json", "gpt2_vocab.bpe"},
}};
constexpr const char* kModelFile = "tokenizer.model";

std::unique_ptr<Tokenizer> load_saved(const fs::path& folder, const TokenizerManifest& manifest) {
  std::unique_ptr<Tokenizer> tokenizer;
  if (manifest.kind == "bytes") {
    tokenizer = make_bytes_tokenizer();
  } else if (manifest.kind == "sentencepiece") {
    tokenizer = make_sentencepiece_tokenizer(folder / kModelFile);
  } else if (manifest.kind == "gpt2") {
    tokenizer = make_gpt2_tokenizer(folder / kGpt2Files[0].first, folder / kGpt2Files[0].second);
  } else {
    fail("{}: kind \"{}\" is unknown; known are bytes, sentencepiece and gpt2",
         (folder / TokenizerManifest::kFileName).string(), manifest.kind);
  }
  check(tokenizer->hash() == manifest.hash,
        "{}: the tokenizer's files are not those that were saved here (hash {:016x}, but {} says {:016x}); restore "
        "them, or delete {} to accept them as a new tokenizer",
        folder.string(), tokenizer->hash(), TokenizerManifest::kFileName, manifest.hash, TokenizerManifest::kFileName);
  return tokenizer;
}

std::unique_ptr<Tokenizer> load_folder(const fs::path& folder) {
  if (const auto manifest = read_tokenizer_manifest(folder)) return load_saved(folder, *manifest);
  if (fs::exists(folder / kModelFile)) return make_sentencepiece_tokenizer(folder / kModelFile);
  for (const auto& [vocab, merges] : kGpt2Files) {
    if (fs::exists(folder / vocab) || fs::exists(folder / merges)) {
      return make_gpt2_tokenizer(folder / vocab, folder / merges);
    }
  }
  check(
      !fs::exists(folder / "tokenizer.json"),
      "{}: holds only a Hugging Face tokenizer.json, which llmz does not read; put tokenizer.model (SentencePiece) or "
      "vocab.json and merges.txt (GPT-2) beside it",
      folder.string());
  fail("{}: holds no tokenizer; expected tokenizer.model (SentencePiece), or vocab.json and merges.txt (GPT-2)",
       folder.string());
}

}  // namespace

Tokenizer::~Tokenizer() = default;

std::unique_ptr<Tokenizer> load_tokenizer(const fs::path& where) {
  if (where == "bytes") return make_bytes_tokenizer();
  check(fs::exists(where),
        "{}: no such tokenizer; give a folder, a SentencePiece .model file, one of GPT-2's two files (vocab.json and "
        "merges.txt), or the word bytes; `llmz data prepare --tokenizer train:VOCAB` makes a new one",
        where.string());
  if (fs::is_directory(where)) return load_folder(where);
  if (where.extension() == ".model") return make_sentencepiece_tokenizer(where);
  for (const auto& [vocab, merges] : kGpt2Files) {
    if (where.filename() == vocab || where.filename() == merges) {
      return make_gpt2_tokenizer(where.parent_path() / vocab, where.parent_path() / merges);
    }
  }
  fail(
      "{}: is not named as a tokenizer; known are *.model (SentencePiece) and, for GPT-2, vocab.json with merges.txt "
      "or "
      "encoder.json with vocab.bpe",
      where.string());
}

}  // namespace llmz::data
