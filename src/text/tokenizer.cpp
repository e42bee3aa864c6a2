#include "llmz/text/tokenizer.h"

#include <algorithm>
#include <string>

#include "llmz/core/error.h"
#include "src/text/tokenizer_files.h"

namespace llmz::text {
namespace {

namespace fs = std::filesystem;

/// Every kind there is; where a folder has the files of several, the first one is opened.
constexpr const TokenizerKind* kKinds[] = {&kBytesTokenizer, &kSentencePieceTokenizer, &kGpt2Tokenizer};

/// What `text` gives for every kind, as a list.
template <class Text>
std::string listed(const char* separator, Text text) {
  std::string list;
  for (const TokenizerKind* kind : kKinds) list += (list.empty() ? "" : separator) + std::string(text(*kind));
  return list;
}
std::string all_names() {
  return listed(", ", [](const TokenizerKind& kind) { return kind.name; });
}
std::string all_files() {
  return listed("; ", [](const TokenizerKind& kind) { return kind.files; });
}

std::unique_ptr<Tokenizer> load_saved(const fs::path& folder, const TokenizerManifest& manifest) {
  const auto* const kind =
      std::ranges::find_if(kKinds, [&](const TokenizerKind* each) { return each->name == manifest.kind; });
  check(kind != std::end(kKinds), "{}: kind \"{}\" is unknown; known are {}",
        (folder / TokenizerManifest::kFileName).string(), manifest.kind, all_names());
  std::unique_ptr<Tokenizer> tokenizer = (*kind)->load(folder);
  check(tokenizer->hash() == manifest.hash,
        "{}: the tokenizer's files are not those that were saved here (hash {:016x}, but {} says {:016x}); restore "
        "them, or delete {} to accept them as a new tokenizer",
        folder.string(), tokenizer->hash(), TokenizerManifest::kFileName, manifest.hash, TokenizerManifest::kFileName);
  return tokenizer;
}

}  // namespace

Tokenizer::~Tokenizer() = default;

std::unique_ptr<Tokenizer> load_tokenizer(const fs::path& where) {
  for (const TokenizerKind* kind : kKinds) {
    if (!kind->has_files && where == kind->name) return kind->load(where);
  }
  check(fs::exists(where),
        "{}: no such tokenizer; give a folder or one of its files: {}; `llmz data prepare --tokenizer train:VOCAB` "
        "makes a new one",
        where.string(), all_files());
  const bool in_folder = fs::is_directory(where);
  if (in_folder) {
    if (const auto manifest = read_tokenizer_manifest(where)) return load_saved(where, *manifest);
  }
  for (const TokenizerKind* kind : kKinds) {
    if (auto tokenizer = kind->find(where)) return tokenizer;
  }
  check(in_folder, "{}: is not named as a tokenizer; known are: {}", where.string(), all_files());
  check(!fs::exists(where / "tokenizer.json"),
        "{}: holds only a Hugging Face tokenizer.json, which llmz does not read; put one of these beside it: {}",
        where.string(), all_files());
  fail("{}: holds no tokenizer; known are: {}", where.string(), all_files());
}

}  // namespace llmz::text
