#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "llmz/core/error.h"
#include "src/text/gpt2_tokenizer.h"
#include "src/text/utf8.h"

namespace llmz::text {
namespace {

/// The pattern of Radford et al. 2019 (encoder.py): contractions, letters, digits, the rest, white space up to the last
/// one before a word. Possessive where nothing follows, which changes no match. White space is Unicode's property of
/// that name, spelled out: PCRE2's own \s also takes U+180E, which GPT-2's does not.
std::string gpt2_pattern() {
  const std::string spaces =
      R"(\x09-\x0d\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
  const std::string words = R"('(?:[stmd]|re|ve|ll)| ?\p{L}++| ?\p{N}++)";
  const std::string others = " ?[^\\p{L}\\p{N}" + spaces + "]++";
  const std::string white = "[" + spaces + "]+(?![^" + spaces + "])|[" + spaces + "]++";
  return words + '|' + others + '|' + white;
}

pcre2_code* as_code(void* code) { return static_cast<pcre2_code*>(code); }
pcre2_match_data* as_match(void* match) { return static_cast<pcre2_match_data*>(match); }

}  // namespace

Gpt2Splitter::Gpt2Splitter() {
  int error = 0;
  PCRE2_SIZE offset = 0;
  const std::string pattern = gpt2_pattern();
  code_ = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_UTF | PCRE2_ANCHORED,
                        &error, &offset, nullptr);
  check(code_ != nullptr, "PCRE2 rejects GPT-2's pattern at {} (error {}); it must be built with Unicode support",
        offset, error);
  // Without a just-in-time compiler on this machine the same code is interpreted: slower, equal.
  pcre2_jit_compile(as_code(code_), PCRE2_JIT_COMPLETE);
}

Gpt2Splitter::~Gpt2Splitter() { pcre2_code_free(as_code(code_)); }

Gpt2Splitter::Words::Words(const Gpt2Splitter& splitter, std::string_view text)
    : splitter_(splitter), text_(text), match_(pcre2_match_data_create(1, nullptr)) {
  check(match_ != nullptr, "out of memory while splitting text into words");
}

Gpt2Splitter::Words::~Words() { pcre2_match_data_free(as_match(match_)); }

bool Gpt2Splitter::Words::next(std::string_view& word) {
  if (position_ == text_.size()) return false;
  const size_t begin = position_;
  if (position_ == valid_end_) {
    while (position_ < text_.size() && utf8_character_bytes(text_, position_) == 0) ++position_;
    valid_end_ = valid_utf8_until(text_, position_);
    if (position_ > begin) {
      word = text_.substr(begin, position_ - begin);
      return true;
    }
  }
  const int found = pcre2_match(as_code(splitter_.code_), reinterpret_cast<PCRE2_SPTR>(text_.data()), valid_end_, begin,
                                PCRE2_NO_UTF_CHECK, as_match(match_), nullptr);
  check(found > 0, "PCRE2 failed to split text into words (error {} at byte {} of {})", found, begin, text_.size());
  position_ = pcre2_get_ovector_pointer(as_match(match_))[1];
  word = text_.substr(begin, position_ - begin);
  return true;
}

}  // namespace llmz::text
