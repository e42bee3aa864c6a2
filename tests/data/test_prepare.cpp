#include "llmz/data/prepare.h"

#include <cmath>
#include <map>

#include "data/data_helpers.h"
#include "llmz/data/dataset.h"

namespace llmz::data {
namespace {

constexpr int32_t kEnd = 256;  // the bytes tokenizer's document end

std::string lines(size_t bytes, uint64_t seed) {
  const RandomStream draws(seed, Purpose::test);
  std::string text;
  for (uint64_t i = 0; text.size() < bytes; ++i) text += fmt::format("line {} of text {}\n", i, draws.below(i, 1000));
  return text;
}

/// JSON lines with `count` documents, "<prefix><number>".
std::string json_documents(int count, const std::string& prefix) {
  std::string out;
  for (int i = 0; i < count; ++i) out += fmt::format("{{\"id\": {}, \"text\": \"{}{}\"}}\n", i, prefix, i);
  return out;
}

struct Preparation {
  TestFolder folder;
  PrepareOptions options;
  std::unique_ptr<text::Tokenizer> tokenizer = text::load_tokenizer("bytes");

  Preparation() {
    options.out = folder / "out";
    options.threads = 2;
  }
  std::string input(const std::string& name, const std::string& content) {
    const std::string path = write_file(folder / name, content).string();
    options.inputs.push_back(path);
    return path;
  }
  Manifest run() { return prepare(options, *tokenizer); }
  std::vector<int32_t> ids(const std::string& split) const {
    const std::vector<std::string> inputs = {options.out.string()};
    const Dataset dataset = Dataset::open(inputs, splits().value(split, "split"));
    std::vector<int32_t> out(static_cast<size_t>(dataset.tokens()));
    dataset.read(0, out);
    return out;
  }
  std::string text(const std::string& split) const { return tokenizer->decode(ids(split)); }
  /// Every file of the output folder, by name.
  std::map<std::string, std::string> files() const {
    std::map<std::string, std::string> out;
    for (const auto& entry : std::filesystem::directory_iterator(options.out)) {
      out[entry.path().filename().string()] = read_file(entry.path());
    }
    return out;
  }
};

TEST_CASE("one plain text: its end is validation, and nothing is lost or doubled") {
  const std::string text = lines(300'000, 1);
  for (const std::string name : {"a.txt", "a.txt.gz", "a.txt.zst"}) {
    Preparation p;
    p.options.validation_fraction = 0.1;
    p.input(name, name.ends_with("gz") ? gzip(text) : name.ends_with("zst") ? zstd(text) : text);
    const Manifest manifest = p.run();
    CHECK((p.text("train") + p.text("val") == text));
    CHECK(p.text("train").back() == '\n');
    CHECK(p.ids("train").back() == kEnd);
    CHECK(p.ids("val").back() == kEnd);
    // The tail starts at the last line end before 90 %; lines have about 25 bytes.
    CHECK(std::abs(static_cast<double>(manifest.validation.text_bytes) - 30'000) < 60);
    CHECK(manifest.train.text_bytes + manifest.validation.text_bytes == text.size());
    CHECK(manifest.train.tokens == static_cast<int64_t>(manifest.train.text_bytes) + 1);
    CHECK(manifest.train.documents == 1);
    CHECK(manifest.validation.documents == 1);
  }
}

TEST_CASE("a text of many pieces has its tail where it belongs") {
  Preparation p;
  p.options.validation_fraction = 0.4;  // the tail is longer than a piece
  const std::string text = lines(3'500'000, 2);
  p.input("a.txt", text);
  const Manifest manifest = p.run();
  CHECK((p.text("train") + p.text("val") == text));
  CHECK(std::abs(static_cast<double>(manifest.validation.text_bytes) - 0.4 * static_cast<double>(text.size())) < 60);
}

TEST_CASE("JSON lines are divided by document") {
  Preparation p;
  p.options.validation_fraction = 0.05;
  p.input("a.jsonl", json_documents(700, "first "));
  p.input("b.jsonl.zst", zstd(json_documents(300, "second ")));
  const Manifest manifest = p.run();
  CHECK(manifest.train.documents == 950);
  CHECK(manifest.validation.documents == 50);
  CHECK(manifest.tokenizer_kind == "bytes");
  const auto split_documents = [&](const std::string& split) {
    std::vector<std::string> out(1);
    for (const int32_t id : p.ids(split)) {
      if (id == kEnd) {
        out.emplace_back();
      } else {
        out.back() += static_cast<char>(id);
      }
    }
    CHECK(out.back().empty());
    out.pop_back();
    return out;
  };
  std::vector<std::string> all = split_documents("train"), validation = split_documents("val");
  CHECK(validation.size() == 50);
  all.insert(all.end(), validation.begin(), validation.end());
  std::sort(all.begin(), all.end());
  CHECK(std::unique(all.begin(), all.end()) == all.end());
  CHECK(all.size() == 1000);

  Preparation other;
  other.options = p.options;
  other.options.out = other.folder / "out";
  other.options.seed = 1;
  other.run();
  CHECK_FALSE(other.text("val") == p.text("val"));
}

TEST_CASE("the output does not depend on the number of threads") {
  Preparation p;
  p.options.validation_fraction = 0.1;
  p.options.shard_tokens = 400'000;
  p.input("a.txt", lines(2'500'000, 3));
  p.input("b.jsonl.gz", gzip(json_documents(20'000, "document number ")));
  p.input("c.txt.zst", zstd(lines(1'200'000, 4)));
  std::map<std::string, std::string> expected;
  for (const int threads : {1, 2, 5}) {
    p.options.threads = threads;
    p.options.overwrite = true;
    const Manifest manifest = p.run();
    CHECK(manifest.train.shards.size() >= 4);
    if (threads == 1) expected = p.files();
    CHECK((p.files() == expected));
  }
  CHECK(expected.contains("train_000000.llmz"));
  CHECK(expected.contains("val_000000.llmz"));
  CHECK(expected.contains("dataset.json"));
  CHECK(expected.contains("llmz_tokenizer.json"));
}

TEST_CASE("named validation texts are validation as a whole and left out of training") {
  Preparation p;
  p.input("corpus/a.txt", "aaa\n");
  p.input("corpus/b.txt", "bbb\n");
  p.options.inputs = {(p.folder / "corpus").string()};
  p.options.validation_inputs = {(p.folder / "corpus/b.txt").string()};
  const Manifest manifest = p.run();
  CHECK(p.text("train") == "aaa\n");
  CHECK(p.text("val") == "bbb\n");
  CHECK(manifest.validation.documents == 1);
  p.options.overwrite = true;
  p.options.validation_inputs = p.options.inputs;
  CHECK(contains(error_of([&] { p.run(); }), "nothing is left to train on"));
}

TEST_CASE("cutting a long text into pieces does not change GPT-2's ids") {
  const std::filesystem::path shared = LLMZ_SOURCE_DIR "/../shared/data";
  if (!std::filesystem::exists(shared / "gpt2_vocab.bpe") || !std::filesystem::exists(shared / "tinyshakespeare.txt")) {
    WARN("skipped: GPT-2's vocabulary or the text is not there");
    return;
  }
  Preparation p;
  p.tokenizer = text::load_tokenizer(shared / "gpt2_vocab.bpe");
  p.options.validation_fraction = 0;
  std::string text = read_file(shared / "tinyshakespeare.txt");  // pieces end after line ends
  for (size_t at = 0; at < text.size() / 2; ++at) {
    if (text[at] == '\n') text.insert(at++, "\r");  // in this half, before them
  }
  p.input("a.txt", text);
  p.run();
  std::vector<int32_t> whole;
  p.tokenizer->encode(text, whole);
  whole.push_back(*p.tokenizer->eos());
  CHECK((p.ids("train") == whole));
}

TEST_CASE("a tokenizer is trained on the training side alone") {
  Preparation p;
  p.options.validation_fraction = 0.2;
  p.input("a.txt.zst", zstd(lines(900'000, 10)));
  p.input("b.jsonl", json_documents(40, "document "));
  p.run();
  std::string seen;
  TextReader reader = training_text(p.options);
  for (std::string text; reader.next(text);) seen += text;
  CHECK((seen == p.text("train")));
}

TEST_CASE("shards end with the document that fills them; their facts add up to the manifest's") {
  Preparation p;
  p.options.validation_fraction = 0;
  p.options.shard_tokens = 100;
  p.input("a.jsonl", json_documents(50, "some document "));
  const Manifest manifest = p.run();
  CHECK(manifest.validation.shards.empty());
  REQUIRE(manifest.train.shards.size() > 5);
  int64_t tokens = 0;
  uint64_t bytes = 0;
  for (const auto& listed : manifest.train.shards) {
    const ShardReader shard = ShardReader::open(p.options.out / listed.file);
    shard.verify();
    CHECK(shard.tokens() == listed.tokens);
    CHECK(shard.tokenizer_hash() == p.tokenizer->hash());
    CHECK(read_all(shard).back() == kEnd);
    tokens += shard.tokens();
    bytes += shard.text_bytes();
  }
  CHECK(tokens == manifest.train.tokens);
  CHECK(bytes == manifest.train.text_bytes);
  CHECK(tokens == static_cast<int64_t>(bytes) + 50);
  const Manifest read = read_manifest(p.options.out);
  CHECK(read.train.tokens == tokens);
  CHECK(read.tokenizer_hash == p.tokenizer->hash());
  CHECK(read.unigram_entropy == manifest.unigram_entropy);
}

TEST_CASE("the unigram perplexity is that of the validation tokens under the smoothed training counts") {
  Preparation p;
  p.input("a.txt", "aaab");
  p.options.validation_inputs = {write_file(p.folder / "v.txt", "abc").string()};
  const Manifest manifest = p.run();
  // Training: a 3, b 1, end 1, of 5; vocabulary 257. Validation: a, b, c, end.
  const double expected = -(std::log(4.0) + std::log(2.0) + std::log(1.0) + std::log(2.0)) / 4 + std::log(262.0);
  CHECK(manifest.unigram_entropy == Approx(expected).epsilon(1e-12));  // a few double roundings
  CHECK(manifest.unigram_perplexity == Approx(std::exp(expected)).epsilon(1e-12));
}

TEST_CASE("an interrupted preparation is not taken for a dataset, and the next one clears it away") {
  Preparation p;
  p.options.shard_tokens = 100'000;
  p.input("a.txt", lines(4'000'000, 5));
  p.options.progress = [&](const PrepareProgress& progress) {
    if (progress.text_bytes > 2'000'000) {
      std::filesystem::copy(p.options.out, p.folder / "killed");  // what a power cut would leave
      fail("interrupted");
    }
  };
  CHECK(error_of([&] { p.run(); }) == "interrupted");
  for (const auto& [name, content] : p.files()) CHECK(name == "llmz_tokenizer.json");

  const std::vector<std::string> killed = {(p.folder / "killed").string()};
  CHECK(std::filesystem::exists(p.folder / "killed/train_000001.llmz"));
  CHECK(contains(error_of([&] { Dataset::open(killed, Split::train); }), "not run or not finished"));
  p.options.progress = nullptr;
  p.options.out = killed[0];
  p.options.validation_fraction = 0.01;
  const Manifest manifest = p.run();
  size_t shards = 0;
  for (const auto& [name, content] : p.files()) {
    CHECK_FALSE(name.ends_with(".tmp"));
    shards += name.ends_with(".llmz") ? 1 : 0;
  }
  CHECK(shards == manifest.train.shards.size() + manifest.validation.shards.size());
}

TEST_CASE("a finished dataset is overwritten only when asked, a foreign file never") {
  Preparation p;
  p.input("a.txt", lines(10'000, 6));
  p.run();
  const auto before = p.files();
  CHECK(contains(error_of([&] { p.run(); }), "prepared dataset is there already"));
  CHECK((p.files() == before));
  write_file(p.options.out / "train_mine.llmz", "x");
  write_file(p.options.out / "val_000009.llmz", "x");
  write_file(p.options.out / "train_1000000.llmz.tmp", "x");
  write_file(p.options.out / "notes.txt", "x");
  p.options.overwrite = true;
  p.run();
  CHECK(p.files().contains("train_mine.llmz"));
  CHECK_FALSE(p.files().contains("val_000009.llmz"));
  CHECK_FALSE(p.files().contains("train_1000000.llmz.tmp"));
  CHECK(p.files().contains("notes.txt"));
  // Wrong inputs are noticed before the old dataset is touched.
  p.options.inputs = {(p.folder / "nothing*").string()};
  CHECK_THROWS_AS(p.run(), Error);
  CHECK(p.files().contains("dataset.json"));
}

TEST_CASE("texts that cannot be prepared are one clear error") {
  const auto message = [](const std::function<void(Preparation&)>& set_up) {
    Preparation p;
    set_up(p);
    const std::string what = error_of([&] { p.run(); });
    CHECK_FALSE(std::filesystem::exists(p.options.out / "dataset.json"));
    CHECK_FALSE(std::filesystem::exists(p.options.out / "train_000000.llmz"));
    return what;
  };
  CHECK(contains(message([](Preparation& p) { p.input("a.txt", ""); }), "texts are empty"));
  CHECK(contains(message([](Preparation& p) { p.input("a.jsonl", "\n{\"text\": \"\"}\n"); }), "texts are empty"));
  CHECK(contains(message([](Preparation&) {}), "no input texts"));
  CHECK(contains(message([](Preparation& p) {
                   p.input("a.jsonl", json_documents(20, "x"));
                   p.options.validation_fraction = 1e-6;
                 }),
                 "no document fell to validation: the corpus has only 20"));
  CHECK(contains(message([](Preparation& p) {
                   p.input("a.jsonl", json_documents(90'000, "good ") + "{\"text\": 1}\n" + json_documents(9, "x"));
                 }),
                 "line 90001"));
  CHECK(contains(message([](Preparation& p) {
                   p.input("a.txt.gz", gzip(lines(500'000, 7)).substr(0, 20'000));
                   p.options.validation_fraction = 0;
                 }),
                 "truncated"));
  CHECK(contains(message([](Preparation& p) {
                   p.input("a.txt", "x");
                   p.options.validation_fraction = 1;
                 }),
                 "validation fraction"));
  CHECK(contains(message([](Preparation& p) {
                   p.input("a.txt", "some text");
                   p.options.out = write_file(p.folder / "file", "x") / "out";
                 }),
                 "cannot make the output folder"));
}

TEST_CASE("of two faults the first in the corpus is reported, whatever the threads") {
  for (const int threads : {1, 4}) {
    for (int attempt = 0; attempt < 5; ++attempt) {
      Preparation p;
      p.options.threads = threads;
      p.input("a.jsonl", json_documents(60'000, "a ") + "first fault\n" + json_documents(60'000, "a "));
      p.input("b.jsonl", "second fault\n");
      CHECK(contains(error_of([&] { p.run(); }), "a.jsonl, line 60001"));
    }
  }
}

TEST_CASE("a missing or shortened shard of a prepared dataset is named") {
  Preparation p;
  p.options.shard_tokens = 100;
  p.input("a.jsonl", json_documents(300, "some text "));
  p.run();
  const std::vector<std::string> inputs = {p.options.out.string()};
  CHECK_NOTHROW(Dataset::open(inputs, Split::train));
  const auto shard = p.options.out / "train_000003.llmz";
  std::filesystem::resize_file(shard, std::filesystem::file_size(shard) - 1);
  CHECK(contains(error_of([&] { Dataset::open(inputs, Split::train); }), "train_000003.llmz: truncated"));
  std::filesystem::remove(shard);
  CHECK(contains(error_of([&] { Dataset::open(inputs, Split::train); }), "train_000003.llmz: this shard is missing"));
  write_file(p.options.out / "dataset.json", "{\"version\": 1}");
  CHECK(contains(error_of([&] { Dataset::open(inputs, Split::validation); }), "dataset.json: damaged"));
}

TEST_CASE("progress ends at the whole corpus") {
  Preparation p;
  p.input("a.txt", lines(3'000'000, 8));
  const std::string packed = gzip(lines(2'000'000, 9));
  p.input("b.txt.gz", packed);
  std::vector<PrepareProgress> calls;
  p.options.progress = [&](const PrepareProgress& progress) { calls.push_back(progress); };
  const Manifest manifest = p.run();
  REQUIRE(calls.size() >= 4);
  CHECK(calls.back().bytes_read == calls.back().bytes_total);
  CHECK(calls.back().bytes_total == std::filesystem::file_size(p.folder / "a.txt") + packed.size());
  CHECK(calls.back().tokens == manifest.train.tokens + manifest.validation.tokens);
  CHECK(calls.back().text_bytes == manifest.train.text_bytes + manifest.validation.text_bytes);
  CHECK(calls.front().text_bytes < calls.back().text_bytes);
}

}  // namespace
}  // namespace llmz::data
