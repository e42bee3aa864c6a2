#include "llmz/text/tokenizer.h"

#include <algorithm>
#include <string>

#include "llmz/config/schema.h"
#include "llmz/core/error.h"
#include "llmz/core/nearest.h"
#include "src/text/tokenizer_files.h"

namespace llmz::text {

extern const TokenizerRow kBytesTokenizer, kSentencePieceTokenizer, kGpt2Tokenizer;

namespace {

namespace fs = std::filesystem;

/// Every kind there is; where a folder has the files of several, the first one is opened.
constexpr const TokenizerRow* kKinds[] = {&kBytesTokenizer, &kSentencePieceTokenizer, &kGpt2Tokenizer};

/// What `text` gives for the kinds that `wanted` takes, as a list.
template <class Text, class Wanted>
std::string listed(const char* separator, Text text, Wanted wanted) {
  std::vector<std::string> list;
  for (const TokenizerRow* kind : kKinds) {
    if (wanted(*kind)) list.emplace_back(text(*kind));
  }
  return fmt::format("{}", fmt::join(list, separator));
}
const char* name_of(const TokenizerRow& kind) { return kind.name; }
const char* files_of(const TokenizerRow& kind) { return kind.files; }
bool any(const TokenizerRow&) { return true; }
bool is_opened_by_name(const TokenizerRow& kind) { return kind.saved.empty(); }
bool has_files(const TokenizerRow& kind) { return !kind.saved.empty(); }
bool is_trainable(const TokenizerRow& kind) { return kind.train != nullptr; }

std::string all_files() { return listed("; ", files_of, any); }

const TokenizerRow* find_kind(const std::string& name) {
  const auto* const kind = std::ranges::find_if(kKinds, [&](const TokenizerRow* each) { return each->name == name; });
  return kind == std::end(kKinds) ? nullptr : *kind;
}

std::unique_ptr<Tokenizer> load_saved(const fs::path& folder, const TokenizerManifest& manifest) {
  const TokenizerRow* const kind = find_kind(manifest.kind);
  check(kind != nullptr, "{}: kind \"{}\" is unknown; known are {}", (folder / TokenizerManifest::kFileName).string(),
        manifest.kind, listed(", ", name_of, any));
  std::unique_ptr<Tokenizer> tokenizer = kind->load(folder);
  check(tokenizer->hash() == manifest.hash,
        "{}: the tokenizer's files are not those that were saved here (hash {:016x}, but {} says {:016x}); restore "
        "them, or delete {} to accept them as a new tokenizer",
        folder.string(), tokenizer->hash(), TokenizerManifest::kFileName, manifest.hash, TokenizerManifest::kFileName);
  return tokenizer;
}

/// The parts of "a,b,c".
std::vector<std::string> parts_of(const std::string& text) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

/// "key=value", for the row's own settings.
void set_part(const TokenizerRow& kind, config::Bag& settings, const std::string& part, const std::string& source) {
  const size_t equals = part.find('=');
  check(equals != std::string::npos, "{}: \"{}\" must be key=value", source, part);
  const std::string key = part.substr(0, equals);
  const config::Fields<config::Bag> fields = kind.fields();
  std::vector<std::string> known = {"kind"};
  for (const config::Field& field : fields.rows()) {
    if (field.path == key) return config::set_from_text(field, &settings, part.substr(equals + 1), source);
    known.push_back(field.path);
  }
  fail("{}: unknown key \"{}\"; did you mean \"{}\"? Keys of {}: {}", source, key, nearest_name(key, known), kind.name,
       fmt::join(known, ", "));
}

}  // namespace

TokenizerTraining TokenizerTraining::parse(const std::string& text, const std::string& source) {
  constexpr std::string_view kKindKey = "kind=";
  std::vector<std::string> parts = parts_of(text);
  const bool is_number = !parts[0].empty() && parts[0].find_first_not_of("0123456789") == std::string::npos;
  check(is_number, "{}: after train: comes the size of the vocabulary, such as train:8192", source);
  const auto* kind = *std::ranges::find_if(kKinds, [](const TokenizerRow* each) { return is_trainable(*each); });
  const auto named = std::ranges::find_if(parts, [&](const std::string& part) { return part.starts_with(kKindKey); });
  if (named != parts.end()) {
    const std::string name = named->substr(kKindKey.size());
    kind = find_kind(name);
    check(kind != nullptr && is_trainable(*kind), "{}: no tokenizer \"{}\" can be made from text; known: {}", source,
          name, listed(", ", name_of, is_trainable));
    parts.erase(named);
  }
  TokenizerTraining training{kind->name, {}};
  set_part(*kind, training.settings, "vocab_size=" + parts[0], source);
  for (size_t i = 1; i < parts.size(); ++i) set_part(*kind, training.settings, parts[i], source);
  return training;
}

std::unique_ptr<Tokenizer> train_tokenizer(const TokenizerTraining& training, const TextSource& text,
                                           const fs::path& folder) {
  const TokenizerRow* const kind = find_kind(training.kind);
  check(kind != nullptr && is_trainable(*kind), "no tokenizer \"{}\" can be made from text; known: {}", training.kind,
        listed(", ", name_of, is_trainable));
  return kind->train(training.settings, text, folder);
}

std::string tokenizer_choices() {
  return fmt::format(
      "{}; train:VOCAB, which makes one of VOCAB tokens from the text ({}); or where one is: {}, or a folder "
      "with them",
      listed("; ", name_of, is_opened_by_name), listed(", ", name_of, is_trainable), listed(", ", files_of, has_files));
}

std::vector<std::string> tokenizer_files() {
  std::vector<std::string> names = {std::string(TokenizerManifest::kFileName)};
  for (const TokenizerRow* kind : kKinds) names.insert(names.end(), kind->saved.begin(), kind->saved.end());
  return names;
}

Tokenizer::~Tokenizer() = default;

std::unique_ptr<Tokenizer> load_tokenizer(const fs::path& where) {
  for (const TokenizerRow* kind : kKinds) {
    if (is_opened_by_name(*kind) && where == kind->name) return kind->load(where);
  }
  check(fs::exists(where),
        "{}: no such tokenizer; give a folder or one of its files: {}; `llmz data prepare --tokenizer train:VOCAB` "
        "makes a new one",
        where.string(), all_files());
  const bool in_folder = fs::is_directory(where);
  if (in_folder) {
    if (const auto manifest = read_tokenizer_manifest(where)) return load_saved(where, *manifest);
  }
  for (const TokenizerRow* kind : kKinds) {
    auto tokenizer = kind->find != nullptr ? kind->find(where) : nullptr;
    if (tokenizer) return tokenizer;
  }
  check(in_folder, "{}: is not named as a tokenizer; known are: {}", where.string(), all_files());
  check(!fs::exists(where / "tokenizer.json"),
        "{}: holds only a Hugging Face tokenizer.json, which llmz does not read; put one of these beside it: {}",
        where.string(), all_files());
  fail("{}: holds no tokenizer; known are: {}", where.string(), all_files());
}

}  // namespace llmz::text
