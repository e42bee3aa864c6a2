#pragma once

#include <array>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "catch.h"
#include "llmz/core/error.h"
#include "llmz/core/random.h"
#include "llmz/text/tokenizer.h"

/// What the tokenizer tests share: folders, texts, and a small GPT-2 vocabulary.
namespace tokenizer_cases {

namespace fs = std::filesystem;
using namespace std::string_literals;
using llmz::text::Tokenizer;

/// A new folder, removed with everything in it.
class TempFolder {
 public:
  TempFolder() {
    std::string name = (fs::temp_directory_path() / "llmz_tokenizer_XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~TempFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  fs::path operator/(const char* name) const { return path_ / name; }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

inline void write(const fs::path& path, std::string_view content) {
  std::ofstream(path, std::ios::binary).write(content.data(), static_cast<std::streamsize>(content.size()));
}

inline std::string read(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

/// A file that lies outside the repository; where it is not, the test says so and passes by.
inline std::optional<fs::path> shared_file(const char* name) {
  const fs::path path = fs::path(LLMZ_SOURCE_DIR "/../shared/data") / name;
  if (fs::exists(path)) return path;
  WARN("skipped: " << path.string() << " is not there");
  return std::nullopt;
}

inline std::vector<int32_t> encode(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<int32_t> ids;
  tokenizer.encode(text, ids);
  return ids;
}

inline std::string there_and_back(const Tokenizer& tokenizer, std::string_view text) {
  return tokenizer.decode(encode(tokenizer, text));
}

/// The message of the Error that `action` throws; "" when it throws none.
template <class Action>
std::string error_of(Action action) {
  try {
    action();
  } catch (const llmz::Error& e) {
    return e.what();
  }
  return "";
}

inline bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

inline std::string random_bytes(uint64_t seed, size_t count) {
  const llmz::RandomStream random(seed, llmz::Purpose::test);
  std::string bytes(count, '\0');
  for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<char>(random.below(i, 256));
  return bytes;
}

/// Text put together from pieces that tokenizers treat differently: spaces, scripts, digits, damaged UTF-8.
inline std::string random_text(uint64_t seed, size_t pieces) {
  static const std::array kPieces = {" "s,
                                     "  "s,
                                     "   "s,
                                     "\n"s,
                                     "\n\n"s,
                                     "\t"s,
                                     "a"s,
                                     "the"s,
                                     " the"s,
                                     "ing"s,
                                     "Hello"s,
                                     "'s"s,
                                     "'ll"s,
                                     "don't"s,
                                     "123"s,
                                     " 7"s,
                                     "!!"s,
                                     " ..."s,
                                     "\0"s,
                                     "\xe2\x96\x81"s,
                                     "\xe2\x96"s,
                                     "\xff\xfe"s,
                                     "\xed\xa0\x80"s,
                                     "é"s,
                                     "ß"s,
                                     "日本"s,
                                     " мир"s,
                                     "😀"s,
                                     "\u3000"s,
                                     "\u00a0"s,
                                     "<s>"s,
                                     "<0x0A>"s,
                                     "the "s,
                                     "king "s,
                                     "of "s,
                                     "    x = 1;"s,
                                     "\xc0\xaf"s,
                                     "\xf4\x90\x80\x80"s,
                                     "�"s,
                                     "<|endoftext|>"s};
  const llmz::RandomStream random(seed, llmz::Purpose::test);
  std::string text;
  for (size_t i = 0; i < pieces; ++i) text += kPieces[random.below(i, kPieces.size())];
  return text;
}

/// GPT-2's spelling of a byte: itself where Latin-1 prints it, else the next free character from U+0100.
inline std::string byte_spelling(int byte) {
  int next = 256, code = 0;
  for (int b = 0; b <= byte; ++b) {
    const bool printed = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || (b >= 0xae && b <= 0xff);
    code = printed ? b : next++;
  }
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xc0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3f))};
}

struct Merge {
  std::string left, right;
};

inline std::string vocab_json(const std::vector<Merge>& merges) {
  std::vector<std::string> tokens;
  for (int b = 0; b < 256; ++b) tokens.push_back(byte_spelling(b));
  for (const auto& [left, right] : merges) tokens.push_back(left + right);
  tokens.push_back("<|endoftext|>");
  std::string json = "{";
  for (size_t id = 0; id < tokens.size(); ++id) {
    std::string quoted;
    for (const char c : tokens[id]) quoted += c == '"' || c == '\\' ? std::string("\\") + c : std::string(1, c);
    json += (id == 0 ? "\"" : ", \"") + quoted + "\": " + std::to_string(id);
  }
  return json + "}";
}

inline std::string merges_txt(const std::vector<Merge>& merges) {
  std::string text = "#version: 0.2\n";
  for (const auto& [left, right] : merges) text += left + " " + right + "\n";
  return text;
}

/// "Ġ" is the spelling of a space.
inline const std::vector<Merge>& small_merges() {
  static const std::vector<Merge> merges = {{"h", "e"},    {"l", "l"},    {"Ġ", "w"}, {"he", "ll"}, {"o", "r"},
                                            {"hell", "o"}, {"Ġw", "or"},  {"l", "d"}, {"a", "a"},   {"aa", "aa"},
                                            {"Ġ", "t"},    {"Ġt", "he"},  {"'", "s"}, {"Ġ", "Ġ"},   {"1", "2"},
                                            {"Ã", "©"},    {"Ġwor", "ld"}};
  return merges;
}

/// vocab.json and merges.txt of a vocabulary of bytes, `merges` and <|endoftext|>.
inline void write_gpt2(const fs::path& folder, const std::vector<Merge>& merges = small_merges()) {
  write(folder / "vocab.json", vocab_json(merges));
  write(folder / "merges.txt", merges_txt(merges));
}

/// Some hundred kB of words from random syllables, a few of them much more often than others.
inline std::string training_text(uint64_t seed = 1) {
  constexpr std::array kSyllables = {"ka", "lo", "mi", "ren", "tu", "ster", "ing", "é", "ok", "dan", "bi", "quo"};
  const llmz::RandomStream lexicon(0, llmz::Purpose::test), random(seed, llmz::Purpose::test);
  std::string text;
  for (uint64_t i = 0; text.size() < 300'000; i += 3) {
    const uint64_t word = random.below(i, random.below(i + 1, 3000) + 1);
    for (uint64_t k = 0; k <= lexicon.below(5 * word, 4); ++k) {
      text += kSyllables[lexicon.below(5 * word + 1 + k, kSyllables.size())];
    }
    if (word % 13 == 0) text += std::to_string(word);
    text += random.below(i + 2, 12) == 0 ? ".\n" : " ";
  }
  return text;
}

/// A model trained on `training_text`, written into `folder`.
inline fs::path train_small_model(const fs::path& folder, int64_t vocab_size = 500) {
  llmz::text::SentencePieceTraining training;
  training.text = [pending = true](std::string& text) mutable {
    text = training_text();
    return std::exchange(pending, false);
  };
  training.vocab_size = vocab_size;
  training.out_model = folder / "small.model";
  train_sentencepiece(training);
  return training.out_model;
}

}  // namespace tokenizer_cases
