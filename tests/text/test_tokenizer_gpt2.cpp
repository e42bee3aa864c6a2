#include <algorithm>
#include <chrono>

#include "tokenizer_cases.h"

using namespace tokenizer_cases;
using llmz::text::load_tokenizer;

namespace {

using Ids = std::vector<int32_t>;

/// The tokens' spellings, one space between them.
std::string shown(const Tokenizer& tokenizer, std::string_view text) {
  std::string line;
  for (const int32_t id : encode(tokenizer, text)) line += (line.empty() ? "" : " ") + tokenizer.token_text(id);
  return line;
}

std::unique_ptr<Tokenizer> small_gpt2() {
  TempFolder folder;
  write_gpt2(folder.path());
  return load_tokenizer(folder.path());
}

/// The definition, word by word: find the merge of lowest rank among all pairs, apply it everywhere from left to right.
std::vector<std::string> merge_by_definition(const std::string& word, const std::vector<Merge>& merges) {
  std::vector<std::string> parts;
  for (const char c : word) parts.emplace_back(1, c);
  while (true) {
    size_t best = merges.size();
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      for (size_t rank = 0; rank < best; ++rank) {
        if (parts[i] == merges[rank].left && parts[i + 1] == merges[rank].right) best = rank;
      }
    }
    if (best == merges.size()) return parts;
    std::vector<std::string> merged;
    for (size_t i = 0; i < parts.size(); ++i) {
      const bool here = i + 1 < parts.size() && parts[i] == merges[best].left && parts[i + 1] == merges[best].right;
      merged.push_back(here ? parts[i] + parts[i + 1] : parts[i]);
      if (here) ++i;
    }
    parts = merged;
  }
}

/// Merges of random pairs among what bytes and earlier merges make, each with a new result.
std::vector<Merge> random_merges(uint64_t seed, size_t count) {
  const llmz::RandomStream random(seed, llmz::Purpose::test);
  std::vector<std::string> tokens = {"a", "b", "c"};
  std::vector<Merge> merges;
  for (uint64_t i = 0; merges.size() < count; i += 2) {
    const Merge merge{tokens[random.below(i, tokens.size())], tokens[random.below(i + 1, tokens.size())]};
    const std::string result = merge.left + merge.right;
    if (result.size() > 12 || std::find(tokens.begin(), tokens.end(), result) != tokens.end()) continue;
    tokens.push_back(result);
    merges.push_back(merge);
  }
  return merges;
}

}  // namespace

TEST_CASE("gpt2: words are cut as GPT-2 cuts them") {
  const auto tokenizer = small_gpt2();
  CHECK(tokenizer->kind() == "gpt2");
  CHECK(tokenizer->vocab_size() == 256 + 17 + 1);
  CHECK(tokenizer->eos() == 273);
  CHECK_FALSE(tokenizer->bos().has_value());
  CHECK(shown(*tokenizer, "hello world") == "hello Ġworld");
  CHECK(shown(*tokenizer, "hellohello") == "hello hello");
  CHECK(shown(*tokenizer, "the the") == "t he Ġthe");
  // Two spaces are one token, but the last of them belongs to the word.
  CHECK(shown(*tokenizer, "a   the") == "a ĠĠ Ġthe");
  CHECK(shown(*tokenizer, "a  ") == "a ĠĠ");
  CHECK(shown(*tokenizer, "it's") == "i t 's");
  CHECK(shown(*tokenizer, "IT'S") == "I T ' S");
  CHECK(shown(*tokenizer, "h12e") == "h 12 e");
  CHECK(shown(*tokenizer, "é") == "Ã©");
  CHECK(shown(*tokenizer, "\n\t") == "Ċ ĉ");
  CHECK(shown(*tokenizer, "<|endoftext|>") == "< | e n d o f t e x t | >");
  CHECK(tokenizer->decode(Ids{273, 65}) == "<|endoftext|>A");
}

TEST_CASE("gpt2: U+180E is no space, U+0085 is one") {
  const auto tokenizer = small_gpt2();
  // Seen by spaces, of which two in one word are one token: "  " before another space is cut off as "  ", while before
  // anything else the second one belongs to what follows.
  CHECK(shown(*tokenizer, "  \u180e") == "Ġ Ġ á ł İ");
  CHECK(shown(*tokenizer, "  \u0085") == "ĠĠ Â ħ");
}

TEST_CASE("gpt2: merging is as defined, for short and long words") {
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    TempFolder folder;
    const auto merges = random_merges(seed, 60);
    write_gpt2(folder.path(), merges);
    const auto tokenizer = load_tokenizer(folder.path());
    const llmz::RandomStream random(seed + 100, llmz::Purpose::test);
    uint64_t drawn = 0;
    for (const size_t length : {1, 2, 3, 5, 8, 13, 30, 47, 48, 49, 50, 100, 300}) {
      for (int repeat = 0; repeat < 20; ++repeat) {
        std::string word;
        for (size_t i = 0; i < length; ++i) word += static_cast<char>('a' + random.below(drawn++, 3));
        std::string expected;
        for (const auto& part : merge_by_definition(word, merges)) expected += (expected.empty() ? "" : " ") + part;
        REQUIRE(shown(*tokenizer, word) == expected);
      }
    }
  }
}

TEST_CASE("gpt2: any bytes come back") {
  const auto tokenizer = small_gpt2();
  for (uint64_t seed = 0; seed < 40; ++seed) {
    const std::string bytes = random_bytes(seed, 500), text = random_text(seed, 200);
    REQUIRE(there_and_back(*tokenizer, bytes) == bytes);
    REQUIRE(there_and_back(*tokenizer, text) == text);
  }
  for (int b = 0; b < 256; ++b) {
    const std::string byte(1, static_cast<char>(b));
    REQUIRE(encode(*tokenizer, byte) == Ids{b});
  }
  // Damaged UTF-8 ends a word and starts one, and harms nothing around it.
  CHECK(shown(*tokenizer, "hello\xffhello") == "hello ÿ hello");
  CHECK(shown(*tokenizer, "hello\xe2\x96") == "hello â ĸ");
}

TEST_CASE("gpt2: words without an end take time in proportion") {
  const auto tokenizer = small_gpt2();
  const auto start = std::chrono::steady_clock::now();
  for (const std::string& unit : {"a"s, " "s, "\n"s, "\u3000"s, "\xff"s, "!"s, "1"s, "é"s, "hello"s}) {
    std::string text;
    while (text.size() < 300'000) text += unit;
    CHECK((there_and_back(*tokenizer, text) == text));
  }
  // Under a second in an optimised build; quadratic merging would take hours.
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(60));
  CHECK(encode(*tokenizer, std::string(100'000, 'a')).size() == 25'000);
}

TEST_CASE("gpt2: both file names are found from either") {
  TempFolder folder;
  write_gpt2(folder.path());
  const uint64_t hash = load_tokenizer(folder.path())->hash();
  CHECK(load_tokenizer(folder / "vocab.json")->hash() == hash);
  CHECK(load_tokenizer(folder / "merges.txt")->hash() == hash);
  fs::rename(folder / "vocab.json", folder / "encoder.json");
  fs::rename(folder / "merges.txt", folder / "vocab.bpe");
  CHECK(load_tokenizer(folder.path())->hash() == hash);
  CHECK(load_tokenizer(folder / "vocab.bpe")->hash() == hash);
  // Line ends of another system, and no last one, are the same merges.
  std::string merges = read(folder / "vocab.bpe"), crlf;
  for (const char c : merges) crlf += c == '\n' ? "\r\n" : std::string(1, c);
  crlf.resize(crlf.size() - 2);
  write(folder / "vocab.bpe", crlf);
  CHECK(load_tokenizer(folder.path())->hash() == hash);
}

TEST_CASE("gpt2: damaged vocabulary files are named with the place") {
  TempFolder folder;
  const std::string json = vocab_json(small_merges()), merges = merges_txt(small_merges());
  const auto message = [&](const std::string& vocab, const std::string& merge_lines) {
    write(folder / "vocab.json", vocab);
    write(folder / "merges.txt", merge_lines);
    return error_of([&] { load_tokenizer(folder.path()); });
  };
  const auto with = [](std::string text, const std::string& from, const std::string& to) {
    const size_t place = text.find(from);
    REQUIRE(place != std::string::npos);
    return text.replace(place, from.size(), to);
  };
  REQUIRE(message(json, merges).empty());

  CHECK(contains(message(json.substr(0, json.size() / 2), merges), "vocab.json: is not whole JSON"));
  CHECK(contains(message(json.substr(0, json.size() / 2), merges), "line 1, column"));
  CHECK(contains(message("", merges), "vocab.json"));
  CHECK(contains(message("[1]", merges), "vocab.json: is not an object"));
  CHECK(contains(message("3", merges), "vocab.json: is a number"));
  CHECK(contains(message(with(json, "\"hell\": ", "\"hello\": "), merges), "token \"hello\" is there twice"));
  CHECK(contains(message(with(json, ": 260,", ": 261,"), merges), "have the same id 261"));
  CHECK(contains(message(with(json, ": 260,", ": 9999,"), merges), "has the id 9999"));
  CHECK(contains(message(with(json, ": 260,", ": -1,"), merges), "something else than a number"));
  CHECK(contains(message(with(json, ": 260,", ": {\"x\": 1},"), merges), "has an object for its id"));
  CHECK(contains(message(with(json, "\"A\"", "\"ABC\""), merges), "no token for the byte 65"));

  CHECK(contains(message(json, with(merges, "l l\n", "l\n")), "merges.txt: line 3: expected two tokens"));
  CHECK(contains(message(json, with(merges, "l l\n", "l l l\n")), "line 3: expected two tokens"));
  CHECK(contains(message(json, with(merges, "l l\n", "\n")), "line 3: expected two tokens"));
  CHECK(contains(message(json, with(merges, "l l\n", "l q\n")), "line 3: \"lq\" is not in the vocabulary"));
  CHECK(contains(message(json, with(merges, "hell o\n", "l l\n")), "line 7: the merge \"l l\" is on line 3 already"));
  CHECK(contains(message(json, with(merges, "Ġwor ld\n", "")), "1 tokens of"));
  CHECK(contains(message(json, merges.substr(0, merges.find("a a"))), "it is cut short"));
  CHECK(contains(message(json, merges.substr(0, merges.size() - 2)), "line 18: \"Ġworl\" is not in the vocabulary"));

  fs::remove(folder / "merges.txt");
  CHECK(contains(error_of([&] { load_tokenizer(folder.path()); }), "merges.txt: is missing"));
  CHECK(contains(error_of([&] { load_tokenizer(folder / "vocab.json"); }), "merges.txt: is missing"));
}

TEST_CASE("gpt2: OpenAI's vocabulary gives OpenAI's ids") {
  const auto vocab = shared_file("gpt2_encoder.json");
  const auto text_file = shared_file("tinyshakespeare.txt");
  if (!vocab || !text_file) return;
  const auto tokenizer = load_tokenizer(*vocab);
  CHECK(tokenizer->vocab_size() == 50257);
  CHECK(tokenizer->eos() == 50256);
  // Expected ids: a straightforward implementation of the published algorithm in another language.
  const std::vector<std::pair<std::string, Ids>> known = {
      {"Hello, world!", {15496, 11, 995, 0}},
      {"I'm sure they'll say we've DON'T y'all's",
       {40, 1101, 1654, 484, 1183, 910, 356, 1053, 23917, 6, 51, 331, 6, 439, 338}},
      {"  two  spaces\n\n\tand tabs \n", {220, 734, 220, 9029, 628, 197, 392, 22524, 220, 198}},
      {"naïve café — 日本語 😀 Привет", {2616, 38776, 40304, 851,   10545, 245,   98,    17312, 105,   45739,
                                        252,  30325, 222,   12466, 253,   21169, 18849, 38857, 16843, 20375}},
      {"1234567 3.14 ½ Ⅷ", {10163, 2231, 3134, 513, 13, 1415, 25208, 2343, 227, 100}},
      {"\u00a0\u3000x \u180e\u200b y", {1849, 5099, 222, 87, 28053, 254, 236, 9525, 331}},
      {"<|endoftext|>", {27, 91, 437, 1659, 5239, 91, 29}},
      {"def f(x):\n    return x**2  # ok\n",
       {4299, 277, 7, 87, 2599, 198, 220, 220, 220, 1441, 2124, 1174, 17, 220, 1303, 12876, 198}},
  };
  for (const auto& [text, ids] : known) {
    INFO(text);
    CHECK(encode(*tokenizer, text) == ids);
    CHECK(tokenizer->decode(ids) == text);
  }
  CHECK(tokenizer->token_text(995) == "Ġworld");
  const std::string text = read(*text_file);
  const auto ids = encode(*tokenizer, text);
  CHECK(ids.size() == 338025);  // the count that published preparations of this text report
  CHECK((tokenizer->decode(ids) == text));
  const std::string bytes = random_bytes(5, 20000);
  CHECK((there_and_back(*tokenizer, bytes) == bytes));

  TempFolder folder;
  tokenizer->save(folder.path());
  CHECK(load_tokenizer(folder.path())->hash() == tokenizer->hash());
}
