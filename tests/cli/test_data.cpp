#include <nlohmann/json.hpp>

#include "catch.h"
#include "tiny_run.h"

using namespace llmz::testing;
using nlohmann::json;

namespace {

json inspect(const TinyRun& run, const std::string& where, std::vector<std::string> more = {}) {
  std::vector<std::string> arguments = {"data", "inspect", where, "--json"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  const Outcome outcome = run.llmz(arguments);
  INFO(outcome.err);
  REQUIRE(outcome.exit_code == 0);
  return json::parse(outcome.out);
}

std::vector<std::string> prepare_arguments(const std::string& tokenizer, const std::string& out,
                                           std::vector<std::string> more = {}) {
  std::vector<std::string> arguments = {"data",        "prepare", "--input", "text.txt",
                                        "--tokenizer", tokenizer, "--out",   out};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

}  // namespace

TEST_CASE("data prepare with the bytes tokenizer keeps every byte", "[cli]") {
  const TinyRun run;
  const std::string text = little_text(2000);
  const json found = inspect(run, "data", {"--sample-tokens", "1000"});
  CHECK(found["tokenizer"] == "bytes");
  CHECK(found["text_bytes"] == text.size());
  CHECK(found["shards"].size() == 2);
  CHECK(found["sample_text"].get<std::string>() == text.substr(0, 1000));

  const Outcome shown =
      run.llmz({"data", "inspect", "data/val_000000.llmz", "--sample-start", "5", "--sample-tokens", "7"});
  CHECK(shown.exit_code == 0);
  CHECK_THAT(shown.out, contains("vocabulary 257") && contains("tokens 5 to 12 (bytes tokenizer)"));
}

TEST_CASE("data prepare trains a tokenizer on the text", "[cli]") {
  const TinyRun run;
  const Outcome prepared = run.llmz(prepare_arguments("train:300", "words"));
  INFO(prepared.err);
  REQUIRE(prepared.exit_code == 0);
  CHECK_THAT(prepared.out, contains("tokenizer sentencepiece with 300 tokens") && contains("unigram perplexity") &&
                               contains("bytes a token") && contains("MB/s"));
  CHECK(names_in(run / "words") == std::set<std::string>{"dataset.json", "llmz_tokenizer.json", "tokenizer.model",
                                                         "train_000000.llmz", "val_000000.llmz"});
  const json found = inspect(run, "words");
  CHECK(found["tokenizer"] == "sentencepiece");
  CHECK(found["shards"][0]["vocab_size"] == 300);
  CHECK(found["tokens"].get<int64_t>() < inspect(run, "data")["tokens"].get<int64_t>());

  // The tokenizer that was made serves other texts, and the same text gives the same one.
  REQUIRE(run.llmz(prepare_arguments("words/tokenizer.model", "again")).exit_code == 0);
  REQUIRE(run.llmz(prepare_arguments("train:300", "anew")).exit_code == 0);
  CHECK(contents_of(run / "again") == contents_of(run / "words"));
  CHECK(contents_of(run / "anew") == contents_of(run / "words"));
}

TEST_CASE("a preparation that fails leaves nothing behind and an earlier one alone", "[cli]") {
  const TinyRun run;
  const auto check_failure = [&](const std::vector<std::string>& arguments, const std::string& reason) {
    const Outcome outcome = run.llmz(arguments);
    CAPTURE(outcome.err);
    CHECK(outcome.exit_code == 1);
    CHECK(outcome.last_error_line().starts_with("llmz: "));
    CHECK_THAT(outcome.last_error_line(), contains(reason));
  };
  const auto before = contents_of(run.folder());
  check_failure(prepare_arguments("train:100000", "new/folder"), "vocabulary of 100000");
  check_failure(prepare_arguments("train:many", "new"), "train:8192");
  check_failure(prepare_arguments("no.model", "new"), "no such tokenizer");
  check_failure({"data", "prepare", "--input", "absent.txt", "--tokenizer", "bytes", "--out", "new"}, "absent.txt");
  check_failure(prepare_arguments("bytes", "data"), "--overwrite");
  check_failure(prepare_arguments("train:300", "data"), "--overwrite");
  check_failure(prepare_arguments("train:100000", "data", {"--overwrite"}), "vocabulary of 100000");
  put(run / "bad.jsonl", "{\"text\": \"fine\"}\n{\"txt\": \"no text\"}\n");
  check_failure({"data", "prepare", "--input", "bad.jsonl", "--tokenizer", "bytes", "--out", "new"}, "line 2");
  fs::remove(run / "bad.jsonl");
  CHECK(contents_of(run.folder()) == before);
}

TEST_CASE("data prepare takes the settings of text formats as options", "[cli]") {
  const TinyRun run;
  put(run / "notes.txt", "one\n\ntwo\n\nthree\n");
  put(run / "lines.jsonl", "{\"body\": \"four\"}\n");
  const std::vector<std::string> plain = {"data",        "prepare", "--input",      "notes.txt", "--out",       "notes",
                                          "--tokenizer", "bytes",   "--validation", "0",         "--separator", ""};
  const Outcome divided = run.llmz(plain);
  INFO(divided.err);
  REQUIRE(divided.exit_code == 0);
  CHECK_THAT(divided.out, contains("notes: 3 documents, 14 tokens"));
  const std::vector<std::string> lines = {"data",         "prepare", "--input",      "lines.jsonl",
                                          "--out",        "lines",   "--tokenizer",  "bytes",
                                          "--validation", "0",       "--text-field", "body"};
  const Outcome named = run.llmz(lines);
  INFO(named.err);
  REQUIRE(named.exit_code == 0);
  CHECK_THAT(named.out, contains("lines: 1 documents, 5 tokens"));
  CHECK_THAT(run.llmz({"help", "data", "prepare"}).out,
             contains("--text-field TEXT") && contains("Member of each JSON line"));
}
