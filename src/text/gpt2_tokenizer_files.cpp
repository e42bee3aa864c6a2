#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <unordered_set>

#include "llmz/core/error.h"
#include "llmz/io/files.h"
#include "src/text/gpt2_tokenizer.h"
#include "src/text/tokenizer_files.h"

namespace llmz::text {
namespace {

using Ids = std::unordered_map<std::string, int32_t>;

/// Takes {"token": id, ...} and nothing else. Events rather than a document, because a document forgets that a key came
/// twice.
class VocabReader final : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit VocabReader(std::string file) : file_(std::move(file)) {}
  Ids take() { return std::move(ids_); }

  bool start_object(size_t) override {
    check(depth_++ == 0, "{}: token {} has an object for its id", file_, quoted());
    return true;
  }
  bool end_object() override { return true; }
  bool key(std::string& name) override {
    key_ = name;
    return true;
  }
  bool number_unsigned(uint64_t value) override {
    check(depth_ == 1, "{}: is a number, not an object of tokens and ids", file_);
    check(value <= static_cast<uint64_t>(INT32_MAX), "{}: token {} has the id {}, which does not fit 32 bits", file_,
          quoted(), value);
    check(ids_.emplace(key_, static_cast<int32_t>(value)).second, "{}: token {} is there twice", file_, quoted());
    return true;
  }
  bool number_integer(int64_t) override { return no_id(); }
  bool number_float(double, const std::string&) override { return no_id(); }
  bool null() override { return no_id(); }
  bool boolean(bool) override { return no_id(); }
  bool string(std::string&) override { return no_id(); }
  bool binary(nlohmann::json::binary_t&) override { return no_id(); }
  bool start_array(size_t) override { return no_id(); }
  bool end_array() override { return true; }
  bool parse_error(size_t, const std::string&, const nlohmann::json::exception& e) override {
    fail("{}: is not whole JSON: {}", file_, printable(e.what()));
  }

 private:
  std::string quoted() const { return '"' + printable(key_) + '"'; }
  bool no_id() {
    check(depth_ == 1, "{}: is not an object of tokens and ids", file_);
    fail("{}: token {} has something else than a number from 0 for its id", file_, quoted());
  }

  std::string file_;
  std::string key_;
  int depth_ = 0;
  Ids ids_;
};

/// GPT-2's printable stand-ins for the 256 bytes: printable Latin-1 characters stand for themselves, the other bytes
/// for U+0100, U+0101, ... in their order.
std::array<char32_t, 256> byte_alphabet() {
  std::array<char32_t, 256> alphabet{};
  char32_t next = 256;
  for (char32_t b = 0; b < 256; ++b) {
    const bool shown = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    alphabet[b] = shown ? b : next++;
  }
  return alphabet;
}

std::string utf8(char32_t c) {  // the alphabet ends at U+0143: one or two bytes
  if (c < 0x80) return {static_cast<char>(c)};
  return {static_cast<char>(0xc0 | (c >> 6)), static_cast<char>(0x80 | (c & 0x3f))};
}

/// Spelling of a single byte -> the byte.
std::unordered_map<std::string, char> byte_spellings() {
  std::unordered_map<std::string, char> bytes;
  const auto alphabet = byte_alphabet();
  for (size_t b = 0; b < 256; ++b) bytes[utf8(alphabet[b])] = static_cast<char>(b);
  return bytes;
}

/// The bytes that a spelling stands for; the spelling itself when it has characters outside the alphabet, which only
/// special tokens have.
std::string spelled_bytes(const std::string& spelling, const std::unordered_map<std::string, char>& letters) {
  std::string bytes;
  for (size_t i = 0; i < spelling.size();) {
    const size_t length = static_cast<unsigned char>(spelling[i]) < 0x80 ? 1 : 2;
    const auto letter = letters.find(spelling.substr(i, length));
    if (letter == letters.end()) return spelling;
    bytes += letter->second;
    i += length;
  }
  return bytes;
}

void fill_tokens(const std::string& file, const Ids& ids, Gpt2Vocabulary& vocabulary) {
  vocabulary.spelling.resize(ids.size());
  for (const auto& [token, id] : ids) {
    check(id < static_cast<int32_t>(ids.size()), "{}: token \"{}\" has the id {}, but there are only {} tokens", file,
          printable(token), id, ids.size());
    auto& place = vocabulary.spelling[id];
    check(place.empty(), "{}: the tokens \"{}\" and \"{}\" have the same id {}", file,
          printable(std::min(place, token)), printable(std::max(place, token)), id);
    check(!token.empty(), "{}: the token of id {} is empty", file, id);
    place = token;
  }
  const auto letters = byte_spellings();
  for (const auto& spelling : vocabulary.spelling) vocabulary.bytes.push_back(spelled_bytes(spelling, letters));
  for (const auto& [letter, byte] : letters) {
    const auto found = ids.find(letter);
    check(found != ids.end(), "{}: has no token for the byte {} (\"{}\"); is it a byte-level vocabulary?", file,
          static_cast<unsigned char>(byte), letter);
    vocabulary.byte_ids[static_cast<unsigned char>(byte)] = found->second;
  }
  if (const auto end = ids.find("<|endoftext|>"); end != ids.end()) vocabulary.end_of_text = end->second;
}

Gpt2Vocabulary::Merge read_merge(const std::string& file, size_t line_number, std::string_view line, const Ids& ids) {
  const size_t space = line.find(' ');
  const bool two = space != std::string_view::npos && space > 0 && space + 1 < line.size() &&
                   line.find(' ', space + 1) == std::string_view::npos;
  check(two, "{}: line {}: expected two tokens and one space between them, found \"{}\"", file, line_number,
        printable(line));
  const std::string left(line.substr(0, space)), right(line.substr(space + 1));
  const auto id_of = [&](const std::string& token) {
    const auto found = ids.find(token);
    check(found != ids.end(), "{}: line {}: \"{}\" is not in the vocabulary; do the two files belong together?", file,
          line_number, printable(token));
    return found->second;
  };
  return {id_of(left), id_of(right), id_of(left + right)};
}

void fill_merges(const std::string& file, std::string_view text, const Ids& ids, Gpt2Vocabulary& vocabulary) {
  std::unordered_map<uint64_t, size_t> first_line;
  for (size_t line_number = 1; !text.empty(); ++line_number) {
    const size_t newline = text.find('\n');
    std::string_view line = text.substr(0, newline);
    text.remove_prefix(newline == std::string_view::npos ? text.size() : newline + 1);
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    const bool comment = line_number == 1 && line.starts_with("#version");
    if (comment || (line.empty() && text.empty())) continue;
    const auto merge = read_merge(file, line_number, line, ids);
    const uint64_t pair = static_cast<uint64_t>(merge.left) << 32 | static_cast<uint32_t>(merge.right);
    const auto [first, fresh] = first_line.emplace(pair, line_number);
    check(fresh, "{}: line {}: the merge \"{}\" is on line {} already", file, line_number, printable(line),
          first->second);
    vocabulary.merges.push_back(merge);
  }
}

/// Every token is a byte, the result of a merge, or special ("<...>", "[...]").
void check_all_made(const std::string& vocab_file, const std::string& merges_file, const Gpt2Vocabulary& vocabulary) {
  std::vector<bool> made(vocabulary.spelling.size());
  for (const int32_t id : vocabulary.byte_ids) made[id] = true;
  for (const auto& merge : vocabulary.merges) made[merge.result] = true;
  size_t missing = 0;
  std::string example;
  for (size_t id = 0; id < made.size(); ++id) {
    const auto& token = vocabulary.spelling[id];
    const bool special = (token.front() == '<' && token.back() == '>') || (token.front() == '[' && token.back() == ']');
    if (made[id] || special) continue;
    if (missing++ == 0) example = printable(token);
  }
  check(
      missing == 0,
      "{}: after its last line ({} merges) {} tokens of {} are made by no merge, first \"{}\"; it is cut short, or the "
      "two files do not belong together",
      merges_file, vocabulary.merges.size(), missing, vocab_file, example);
}

}  // namespace

Gpt2Vocabulary read_gpt2_vocabulary(const std::filesystem::path& vocab_file, const std::filesystem::path& merges_file) {
  for (const auto& [file, other] : {std::pair(vocab_file, merges_file), std::pair(merges_file, vocab_file)}) {
    check(std::filesystem::exists(file), "{}: is missing; a GPT-2 tokenizer needs it beside {}", file.string(),
          other.filename().string());
  }
  const std::string json = io::read_text(vocab_file);
  VocabReader reader(vocab_file.string());
  nlohmann::json::sax_parse(json, &reader);
  const Ids ids = reader.take();
  Gpt2Vocabulary vocabulary;
  fill_tokens(vocab_file.string(), ids, vocabulary);
  fill_merges(merges_file.string(), io::read_text(merges_file), ids, vocabulary);
  check_all_made(vocab_file.string(), merges_file.string(), vocabulary);
  return vocabulary;
}

void write_gpt2_vocabulary(const Gpt2Vocabulary& vocabulary, const std::filesystem::path& folder) {
  size_t count = 0;  // one token a line, in the order of ids
  std::string json = "{";
  for (const auto& token : vocabulary.spelling) {
    json += count == 0 ? "\n" : ",\n";
    json += nlohmann::json(token).dump() + ": " + std::to_string(count++);
  }
  io::write_text(folder / "vocab.json", json + "\n}\n");
  std::string merges = "#version: 0.2\n";
  for (const auto& merge : vocabulary.merges) {
    merges += vocabulary.spelling[merge.left] + ' ' + vocabulary.spelling[merge.right] + '\n';
  }
  io::write_text(folder / "merges.txt", merges);
}

}  // namespace llmz::text
