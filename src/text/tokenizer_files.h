#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "llmz/text/tokenizer.h"

namespace llmz::text {

/// FNV-1a, 64 bits, over parts that are told apart by their lengths.
class Hasher {
 public:
  void add(std::string_view part);
  uint64_t value() const { return state_; }

 private:
  void add_byte(uint8_t byte) { state_ = (state_ ^ byte) * 0x100000001b3ull; }
  uint64_t state_ = 0xcbf29ce484222325ull;
};

/// llmz_tokenizer.json: which of the tokenizers a folder holds, and its hash.
struct TokenizerManifest {
  static constexpr std::string_view kFileName = "llmz_tokenizer.json";
  std::string kind;
  uint64_t hash = 0;
};
/// Nothing when the folder has no manifest; throws Error for one that cannot be read.
std::optional<TokenizerManifest> read_tokenizer_manifest(const std::filesystem::path& folder);
/// Makes the folder. Called first by every `save`, so that a wrong path fails before anything is written.
void make_tokenizer_folder(const std::filesystem::path& folder);
/// Called last by every `save`: a folder with a manifest is complete.
void write_tokenizer_manifest(const std::filesystem::path& folder, const Tokenizer& tokenizer);

/// `text` on one line: control characters and, with `escape_high`, bytes from 0x80 as \n, \t, \x1b.
std::string printable(std::string_view text, bool escape_high = false);

/// One registry row: a kind of tokenizer, in its own file.
struct TokenizerRow {
  const char* name;   ///< in the manifest
  const char* files;  ///< how a user is told what to give
  /// The names of the files that `save` writes beside the manifest; a kind without any is opened by its name.
  std::span<const char* const> saved;
  /// From a folder that `save` wrote.
  std::unique_ptr<Tokenizer> (*load)(const std::filesystem::path& folder);
  /// From a folder without a manifest, or a file, that is there; nothing if it is not named as one of this kind. Null
  /// for a kind without files.
  std::unique_ptr<Tokenizer> (*find)(const std::filesystem::path& where) = nullptr;
  /// See train_tokenizer; null: it cannot be made from text.
  std::unique_ptr<Tokenizer> (*train)(const config::Bag& settings, const TextSource& text,
                                      const std::filesystem::path& folder) = nullptr;
  /// The settings of `train`, of which vocab_size is one.
  config::Fields<config::Bag> (*fields)() = nullptr;
};

}  // namespace llmz::text
