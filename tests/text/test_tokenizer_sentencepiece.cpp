#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include "src/text/sentencepiece_model.h"
#include "tokenizer_cases.h"

using namespace tokenizer_cases;
using llmz::text::load_tokenizer;
using llmz::text::SentencePieceTraining;
using llmz::text::train_sentencepiece;

namespace {

using Ids = std::vector<int32_t>;

/// What the library itself makes of `text`.
Ids library_ids(const fs::path& model, const std::string& text) {
  sentencepiece::SentencePieceProcessor processor;
  REQUIRE(processor.Load(model.string()).ok());
  std::vector<int> ids;
  REQUIRE(processor.Encode(text, &ids).ok());
  return ids;
}

/// llmz's ids are the library's, on texts full of what could tell them apart.
void check_against_library(const fs::path& model) {
  const auto tokenizer = load_tokenizer(model);
  sentencepiece::SentencePieceProcessor processor;
  REQUIRE(processor.Load(model.string()).ok());
  const std::string words = training_text(2);
  std::vector<int> expected;
  for (uint64_t seed = 0; seed < 400; ++seed) {
    const std::string text = seed % 3 == 0   ? random_text(seed, seed % 60)
                             : seed % 3 == 1 ? random_bytes(seed, seed % 80)
                                             : words.substr(seed * 300, 300) + random_text(seed, 5);
    REQUIRE(processor.Encode(text, &expected).ok());
    REQUIRE(encode(*tokenizer, text) == Ids(expected.begin(), expected.end()));
  }
}

/// Whether llmz encodes the model itself rather than through the library.
bool word_by_word(const fs::path& model) {
  return llmz::text::SentencePieceBpe::make(llmz::text::read_sentencepiece_model(read(model), "model")) != nullptr;
}

std::string train_error(SentencePieceTraining training, std::string text) {
  training.text = [text = std::move(text), pending = true](std::string& out) mutable {
    out = text;
    return std::exchange(pending, false);
  };
  return error_of([&] { train_sentencepiece(training); });
}

}  // namespace

TEST_CASE("sentencepiece: a trained model has the asked size, special tokens and all texts") {
  TempFolder folder;
  const auto tokenizer = load_tokenizer(train_small_model(folder.path()));
  CHECK(tokenizer->kind() == "sentencepiece");
  CHECK(tokenizer->vocab_size() == 500);
  CHECK(tokenizer->bos() == 1);
  CHECK(tokenizer->eos() == 2);
  CHECK(tokenizer->token_text(2) == "</s>");
  const std::string trained = training_text();
  CHECK((there_and_back(*tokenizer, trained) == trained));
  // The vocabulary is of this text: far fewer tokens than bytes.
  CHECK(encode(*tokenizer, trained).size() * 5 < trained.size() * 2);
  for (const std::string& text : {""s, " "s, "  two  spaces "s, "\n\n\tx\r\n"s, "日本語 😀 <s> </s> <0x41>"s, "x\0y"s}) {
    CHECK(there_and_back(*tokenizer, text) == text);
  }
  CHECK(tokenizer->decode(Ids{1, 2}) == "");
  CHECK(there_and_back(*tokenizer, "a\xff z") == "a\ufffd z");
  // Digits are never merged.
  CHECK(encode(*tokenizer, "12345").size() == encode(*tokenizer, "1").size() + 4);
}

TEST_CASE("sentencepiece: word by word equals the library") {
  TempFolder folder;
  for (const int64_t vocab_size : {300, 500, 1200}) {
    const fs::path model = train_small_model(folder.path(), vocab_size);
    CHECK(word_by_word(model));
    check_against_library(model);
  }
}

TEST_CASE("sentencepiece: models of every kind are encoded as by the library") {
  TempFolder folder;
  write(folder / "text.txt", training_text());
  const std::vector<std::pair<std::string, std::string>> variants = {{"model_type", "unigram"},
                                                                     {"byte_fallback", "false"},
                                                                     {"add_dummy_prefix", "false"},
                                                                     {"remove_extra_whitespaces", "true"},
                                                                     {"user_defined_symbols", "the,king"},
                                                                     {"normalization_rule_name", "nfkc"},
                                                                     {"split_by_whitespace", "false"},
                                                                     {"treat_whitespace_as_suffix", "true"}};
  for (const auto& [key, value] : variants) {
    INFO(key << " " << value);
    std::unordered_map<std::string, std::string> settings = {{"input", (folder / "text.txt").string()},
                                                             {"model_prefix", (folder / "variant").string()},
                                                             {"model_type", "bpe"},
                                                             {"vocab_size", "1200"},
                                                             {"byte_fallback", "true"},
                                                             {"normalization_rule_name", "identity"},
                                                             {"remove_extra_whitespaces", "false"},
                                                             {"minloglevel", "4"}};
    settings[key] = value;
    REQUIRE(sentencepiece::SentencePieceTrainer::Train(settings).ok());
    CHECK(word_by_word(folder / "variant.model") == (key == "add_dummy_prefix"));
    check_against_library(folder / "variant.model");
  }
}

TEST_CASE("sentencepiece: training gives the same model every time, from text or from files") {
  TempFolder folder;
  const std::string first = read(train_small_model(folder.path()));
  CHECK((read(train_small_model(folder.path())) == first));

  write(folder / "text.txt", training_text());
  SentencePieceTraining training;
  training.files = {folder / "text.txt"};
  training.vocab_size = 500;
  training.out_model = folder / "from_file.model";
  train_sentencepiece(training);
  CHECK((read(training.out_model) == first));

  // A sample of the lines: another model, the same one each time.
  training.max_sentences = 1000;
  training.out_model = folder / "sample.model";
  train_sentencepiece(training);
  const std::string sample = read(training.out_model);
  train_sentencepiece(training);
  CHECK((sample != first));
  CHECK((read(training.out_model) == sample));
}

TEST_CASE("sentencepiece: lines of any length are learned from") {
  TempFolder folder;
  std::string line = training_text();
  for (char& c : line) c = c == '\n' ? ' ' : c;
  SentencePieceTraining training;
  training.vocab_size = 500;
  training.out_model = folder / "one_line.model";
  CHECK(train_error(training, line) == "");
  const auto tokenizer = load_tokenizer(training.out_model);
  CHECK(encode(*tokenizer, line).size() * 5 < line.size() * 2);
  // No space to cut at, and characters of several bytes.
  std::string joined;
  for (int i = 0; i < 4000; ++i) joined += "éßдж日本"s.substr(0, 2 * (1 + i % 4));
  training.vocab_size = 270;
  CHECK(train_error(training, joined) == "");
  CHECK(there_and_back(*load_tokenizer(training.out_model), joined) == joined);
}

TEST_CASE("sentencepiece: what cannot be trained is explained") {
  TempFolder folder;
  SentencePieceTraining training;
  training.out_model = folder / "x.model";
  training.vocab_size = 5000;
  const std::string small = train_error(training, "hello world\nhello again\n");
  CHECK(contains(small, "no vocabulary of 5000 can be made of these 2 lines"));
  CHECK(contains(small, "give more text"));
  CHECK_FALSE(contains(small, "\n"));
  CHECK_FALSE(fs::exists(training.out_model));
  CHECK(contains(train_error(training, ""), "the text is empty"));
  CHECK(contains(train_error(training, "\n\n\n"), "the text is empty"));
  training.vocab_size = 259;
  CHECK(contains(train_error(training, training_text()), "vocabulary of 259"));
  training.vocab_size = 262;
  CHECK(contains(train_error(training, training_text()), "smaller than required_chars"));
  training.vocab_size = 400;
  training.max_sentences = 0;
  CHECK(contains(train_error(training, "a"), "at most 0 lines"));
  training.max_sentences = 10;
  training.out_model = folder / "no/such/x.model";
  CHECK(contains(train_error(training, "a"), "does not exist"));
  training.out_model = folder / "x.model";
  training.files = {folder / "missing.txt"};
  CHECK(contains(train_error(training, "a"), "missing.txt"));
}

TEST_CASE("sentencepiece: damaged models are refused") {
  TempFolder folder;
  const fs::path model = train_small_model(folder.path());
  const std::string whole = read(model);
  for (const size_t length : {size_t{0}, size_t{1}, size_t{17}, whole.size() / 2, whole.size() - 1}) {
    write(folder / "cut.model", whole.substr(0, length));
    INFO("cut after " << length << " of " << whole.size() << " bytes");
    CHECK(contains(error_of([&] { load_tokenizer(folder / "cut.model"); }), "cut.model: is not a whole"));
  }
  // A cut between two pieces leaves a readable message; that the settings are missing tells.
  size_t refused = 0;
  for (size_t length = 2000; length < 2100; ++length) {
    write(folder / "cut.model", whole.substr(0, length));
    refused += error_of([&] { load_tokenizer(folder / "cut.model"); }).empty() ? 0 : 1;
  }
  CHECK(refused == 100);
  write(folder / "cut.model", random_bytes(1, 5000));
  CHECK_THROWS_AS(load_tokenizer(folder / "cut.model"), llmz::Error);
}

TEST_CASE("sentencepiece: long words take time in proportion") {
  TempFolder folder;
  const auto tokenizer = load_tokenizer(train_small_model(folder.path()));
  for (const std::string& unit : {"a"s, " "s, "\n"s, "kalo"s, "日"s}) {
    std::string text;
    while (text.size() < 200'000) text += unit;
    CHECK((there_and_back(*tokenizer, text) == text));
  }
}

TEST_CASE("sentencepiece: LLaMA's model gives LLaMA's ids") {
  const auto model = shared_file("llama_tokenizer.model");
  const auto text_file = shared_file("tinyshakespeare.txt");
  if (!model || !text_file) return;
  const auto tokenizer = load_tokenizer(*model);
  CHECK(tokenizer->vocab_size() == 32000);
  CHECK(tokenizer->bos() == 1);
  CHECK(tokenizer->eos() == 2);
  CHECK(encode(*tokenizer, "Hello, world!") == Ids{15043, 29892, 3186, 29991});
  CHECK(tokenizer->token_text(15043) == "▁Hello");
  CHECK(tokenizer->token_text(13) == "<0x0A>");
  const std::string text = read(*text_file);
  CHECK((there_and_back(*tokenizer, text) == text));
  const std::string part = text.substr(0, 200'000);  // the library needs seconds for all of it
  CHECK((encode(*tokenizer, part) == library_ids(*model, part)));
  CHECK(word_by_word(*model));
  check_against_library(*model);

  TempFolder folder;
  tokenizer->save(folder.path());
  CHECK(load_tokenizer(folder.path())->hash() == tokenizer->hash());
  CHECK((read(folder / "tokenizer.model") == read(*model)));
}
