#include <thread>

#include "tokenizer_cases.h"

using namespace tokenizer_cases;
using llmz::text::load_tokenizer;

namespace {

/// One of each kind, made without any file from outside.
std::vector<std::unique_ptr<Tokenizer>> one_of_each(const TempFolder& folder) {
  std::vector<std::unique_ptr<Tokenizer>> all;
  all.push_back(load_tokenizer("bytes"));
  write_gpt2(folder.path());
  all.push_back(load_tokenizer(folder.path()));
  all.push_back(load_tokenizer(train_small_model(folder.path())));
  return all;
}

}  // namespace

TEST_CASE("bytes: every byte is its own id and 256 ends a document") {
  const auto tokenizer = load_tokenizer("bytes");
  CHECK(tokenizer->kind() == "bytes");
  CHECK(tokenizer->vocab_size() == 257);
  CHECK_FALSE(tokenizer->bos().has_value());
  CHECK(tokenizer->eos() == 256);
  CHECK(encode(*tokenizer, "A\n\xff") == std::vector<int32_t>{65, 10, 255});
  CHECK(tokenizer->decode(std::vector<int32_t>{72, 105, 256, 33}) == "Hi!");
  CHECK(tokenizer->token_text(10) == "\\n");
  CHECK(tokenizer->token_text(200) == "\\xc8");
  const std::string bytes = random_bytes(1, 4000);
  CHECK(there_and_back(*tokenizer, bytes) == bytes);
}

TEST_CASE("encode appends to what is there") {
  TempFolder folder;
  for (const auto& tokenizer : one_of_each(folder)) {
    INFO(tokenizer->kind());
    std::vector<int32_t> ids = {7};
    tokenizer->encode("hello", ids);
    tokenizer->encode("", ids);
    tokenizer->encode("hello", ids);
    const auto hello = encode(*tokenizer, "hello");
    std::vector<int32_t> expected = {7};
    expected.insert(expected.end(), hello.begin(), hello.end());
    expected.insert(expected.end(), hello.begin(), hello.end());
    CHECK(ids == expected);
  }
}

TEST_CASE("ids outside the vocabulary are refused") {
  TempFolder folder;
  for (const auto& tokenizer : one_of_each(folder)) {
    INFO(tokenizer->kind());
    const auto beyond = static_cast<int32_t>(tokenizer->vocab_size());
    CHECK_NOTHROW(tokenizer->decode(std::vector<int32_t>{0, beyond - 1}));
    CHECK_THROWS_AS(tokenizer->decode(std::vector<int32_t>{0, beyond}), llmz::Error);
    CHECK_THROWS_AS(tokenizer->decode(std::vector<int32_t>{-1}), llmz::Error);
    CHECK_THROWS_AS(tokenizer->token_text(beyond), llmz::Error);
    CHECK(contains(error_of([&] { tokenizer->token_text(-5); }), "-5"));
  }
}

TEST_CASE("a tokenizer comes back from its folder with its hash and its ids") {
  TempFolder folder;
  const std::string text = random_text(3, 300);
  for (const auto& tokenizer : one_of_each(folder)) {
    INFO(tokenizer->kind());
    const fs::path saved = folder.path() / "saved" / tokenizer->kind();
    tokenizer->save(saved);
    const auto loaded = load_tokenizer(saved);
    CHECK(loaded->kind() == tokenizer->kind());
    CHECK(loaded->vocab_size() == tokenizer->vocab_size());
    CHECK(loaded->hash() == tokenizer->hash());
    CHECK(loaded->bos() == tokenizer->bos());
    CHECK(loaded->eos() == tokenizer->eos());
    CHECK(encode(*loaded, text) == encode(*tokenizer, text));
    // Without llmz's own file it is still the tokenizer that other tools see.
    if (tokenizer->kind() != "bytes") {
      fs::remove(saved / "llmz_tokenizer.json");
      CHECK(load_tokenizer(saved)->hash() == tokenizer->hash());
    }
  }
}

TEST_CASE("saving over another tokenizer replaces it") {
  TempFolder folder;
  const auto all = one_of_each(folder);
  for (const auto& tokenizer : all) {
    tokenizer->save(folder / "saved");
    CHECK(load_tokenizer(folder / "saved")->hash() == tokenizer->hash());
  }
}

TEST_CASE("different tokenizers have different hashes") {
  TempFolder folder, other;
  const auto all = one_of_each(folder);
  CHECK(all[0]->hash() != all[1]->hash());
  CHECK(all[1]->hash() != all[2]->hash());
  CHECK(all[0]->hash() != all[2]->hash());

  auto swapped = small_merges();
  std::swap(swapped[0], swapped[1]);
  write(other / "vocab.json", vocab_json(small_merges()));
  write(other / "merges.txt", merges_txt(swapped));
  CHECK(load_tokenizer(other.path())->hash() != all[1]->hash());
  CHECK(load_tokenizer(train_small_model(other.path(), 501))->hash() != all[2]->hash());
}

TEST_CASE("files changed after saving are noticed") {
  TempFolder folder;
  write_gpt2(folder.path());
  load_tokenizer(folder.path())->save(folder / "saved");
  auto merges = small_merges();
  std::swap(merges[0], merges[1]);
  write(folder / "saved/merges.txt", merges_txt(merges));
  CHECK(contains(error_of([&] { load_tokenizer(folder / "saved"); }), "not those that were saved"));
}

TEST_CASE("what is no tokenizer is said to be none") {
  TempFolder folder;
  const auto message = [&] { return error_of([&] { load_tokenizer(folder.path()); }); };
  CHECK(contains(message(), "holds no tokenizer"));
  write(folder / "tokenizer.json", "{}");
  CHECK(contains(message(), "Hugging Face tokenizer.json"));
  write(folder / "llmz_tokenizer.json", "{\"kind\": \"bytes\"");
  CHECK(contains(message(), "is not a tokenizer manifest"));
  write(folder / "llmz_tokenizer.json", "{\"kind\": \"bytes\", \"hash\": \"12\"}");
  CHECK(contains(message(), "is not a tokenizer manifest"));
  write(folder / "llmz_tokenizer.json", "{\"kind\": \"runes\", \"hash\": \"0123456789abcdef\"}");
  CHECK(contains(message(), "\"runes\" is unknown"));
  CHECK(contains(error_of([&] { load_tokenizer(folder / "nothing.model"); }), "no such tokenizer"));
  write(folder / "words.txt", "x");
  CHECK(contains(error_of([&] { load_tokenizer(folder / "words.txt"); }), "not named as a tokenizer"));
  CHECK(contains(error_of([&] { load_tokenizer("bytes")->save(folder / "words.txt"); }), "words.txt"));
}

TEST_CASE("several threads encode what one thread does") {
  TempFolder folder;
  for (const auto& tokenizer : one_of_each(folder)) {
    INFO(tokenizer->kind());
    std::vector<std::string> texts;
    for (uint64_t seed = 0; seed < 64; ++seed) texts.push_back(random_text(seed, 200) + random_bytes(seed, 50));
    std::vector<std::vector<int32_t>> together(texts.size());
    std::vector<std::thread> threads;
    for (size_t t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        for (size_t i = t; i < texts.size(); i += 4) tokenizer->encode(texts[i], together[i]);
      });
    }
    for (auto& thread : threads) thread.join();
    size_t equal = 0;
    for (size_t i = 0; i < texts.size(); ++i) equal += together[i] == encode(*tokenizer, texts[i]) ? 1 : 0;
    CHECK(equal == texts.size());
  }
}

TEST_CASE("how a tokenizer is made: a size, and settings of its kind") {
  using llmz::text::SentencePieceTraining;
  using llmz::text::TokenizerTraining;
  const auto parse = [](const std::string& text) { return TokenizerTraining::parse(text, "--tokenizer"); };
  CHECK(parse("8192").kind == "sentencepiece");
  CHECK(parse("8192").settings.get<SentencePieceTraining>().vocab_size == 8192);
  const auto chosen = parse("300,max_sentences=1e4,kind=sentencepiece").settings.get<SentencePieceTraining>();
  CHECK(chosen.vocab_size == 300);
  CHECK(chosen.max_sentences == 10000);
  for (const auto& [wrong, reason] : {std::pair<const char*, const char*>{"", "such as train:8192"},
                                      {"8k", "such as train:8192"},
                                      {"0", "at least 1"},
                                      {"300,max_sentences", "must be key=value"},
                                      {"300,max_sentences=many", "whole number"},
                                      {"300,max_sentence=5", "did you mean \"max_sentences\"?"},
                                      {"300,kind=bytes", "no tokenizer \"bytes\" can be made from text"}}) {
    const std::string error = error_of([&, text = wrong] { parse(text); });
    CHECK(error.find("--tokenizer: ") == 0);
    CHECK(error.find(reason) != std::string::npos);
  }
}
