#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace llmz::text {

/// Contents of GPT-2's two files, checked against each other.
struct Gpt2Vocabulary {
  struct Merge {
    int32_t left, right, result;
  };
  std::vector<std::string> spelling;    ///< by id, as in vocab.json: printable ("Ġthe")
  std::vector<std::string> bytes;       ///< by id: what the token stands for (" the")
  std::array<int32_t, 256> byte_ids{};  ///< the token of each single byte
  std::vector<Merge> merges;            ///< the earlier one goes first
  std::optional<int32_t> end_of_text;   ///< <|endoftext|>
};

/// Throws Error, naming file and line or key, for anything wrong: syntax, ids given twice or left out, a byte without
/// a token, a merge of or into something unknown, tokens that no merge makes (a truncated merges file).
Gpt2Vocabulary read_gpt2_vocabulary(const std::filesystem::path& vocab_file, const std::filesystem::path& merges_file);
/// Writes vocab.json and merges.txt, from which `read_gpt2_vocabulary` makes an equal one.
void write_gpt2_vocabulary(const Gpt2Vocabulary& vocabulary, const std::filesystem::path& folder);

/// Cuts text into the words that byte pairs are merged within: contractions, runs of letters, of digits, of other
/// characters (each with at most one space before it) and white space. Invalid UTF-8 becomes words of its own, so that
/// the words joined are always the text.
class Gpt2Splitter {
 public:
  Gpt2Splitter();
  ~Gpt2Splitter();
  Gpt2Splitter(const Gpt2Splitter&) = delete;
  Gpt2Splitter& operator=(const Gpt2Splitter&) = delete;

  /// A walk over one text, which must outlive it. One thread each; any number at a time.
  class Words {
   public:
    Words(const Gpt2Splitter& splitter, std::string_view text);
    ~Words();
    Words(const Words&) = delete;
    Words& operator=(const Words&) = delete;
    /// False at the end of the text.
    bool next(std::string_view& word);

   private:
    const Gpt2Splitter& splitter_;
    std::string_view text_;
    size_t position_ = 0;
    size_t valid_end_ = 0;  ///< text_[position_, valid_end_) is known to be UTF-8
    void* match_;           ///< pcre2_match_data
  };

 private:
  void* code_;  ///< pcre2_code, read only
};

}  // namespace llmz::text
