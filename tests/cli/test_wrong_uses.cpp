#include "catch.h"
#include "llmz/data/shard.h"
#include "tiny_run.h"

using namespace llmz::testing;

namespace {

/// One clear line, an exit code that says failure, and every file as it was.
void check_refused(const TinyRun& run, const std::vector<std::string>& arguments,
                   const std::vector<std::string>& reasons) {
  const auto before = contents_of(run.folder());
  const Outcome outcome = run.llmz(arguments);
  CAPTURE(arguments, outcome.err);
  CHECK(outcome.signal == 0);
  CHECK(outcome.exit_code > 0);
  CHECK(outcome.error_lines() == 1);
  CHECK(outcome.err.starts_with("llmz: "));
  for (const std::string& reason : reasons) CHECK_THAT(outcome.err, contains(reason));
  CHECK(contents_of(run.folder()) == before);
}

/// Flips one bit.
void damage(const fs::path& file, int64_t at) {
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  stream.seekg(at);
  const int byte = stream.get();
  stream.seekp(at);
  stream.put(static_cast<char>(byte ^ 1));
}

/// A shard of the format of llm.c, which does not tell its vocabulary.
void put_llmc_shard(const fs::path& file, int tokens, int id) {
  std::vector<int32_t> header(256);
  header[0] = 20240520;
  header[1] = 1;
  header[2] = tokens;
  std::string bytes(reinterpret_cast<const char*>(header.data()), header.size() * sizeof(int32_t));
  for (int i = 0; i < tokens; ++i) {
    bytes += static_cast<char>(id & 255);
    bytes += static_cast<char>(id >> 8);
  }
  put(file, bytes);
}

}  // namespace

TEST_CASE("wrong commands and options are one line", "[cli]") {
  const TinyRun run;
  check_refused(run, {"trian", "tiny.json"}, {"trian", "did you mean 'train'?"});
  check_refused(run, {"help", "trian"}, {"trian", "did you mean 'train'?"});
  check_refused(run, {"help", "train", "more"}, {"llmz train", "more"});
  check_refused(run, {"version", "2"}, {"2"});
  check_refused(run, {"train"}, {"CONFIG"});
  check_refused(run, {"train", "tiny.json", "--resum"}, {"--resum"});
  check_refused(run, {"train", "tiny.json", "--resume", "--overwrite"}, {"--overwrite"});
  check_refused(run, {"data"}, {"--help"});
  check_refused(run, {"bench", "everything"}, {"--help"});
  check_refused(run, {"bench", "ops", "--only", "nothing like it"}, {"nothing like it"});
  check_refused(run, {"bench", "step", "--model", "llama-9000b"}, {"llama-9000b", "did you mean", "llama-60m"});
  check_refused(run, {"train", "llama-60m-c5"}, {"llama-60m-c5", "did you mean \"llama-60m-c4\"?"});
  check_refused(run, {"generate", "run", "--tokens", "many"}, {"many"});
  check_refused(run, {"--log-level", "loud", "doctor"}, {"loud"});
}

TEST_CASE("wrong configurations name the key and leave nothing", "[cli]") {
  const TinyRun run;
  check_refused(run, {"train", "absent.json"}, {"absent.json"});
  check_refused(run, train_arguments({"train.stpes=5"}), {"train.stpes", "train.steps"});
  check_refused(run, train_arguments({"train.steps=-5"}), {"train.steps", "-5"});
  check_refused(run, train_arguments({"optimizer.beta1=1.5"}), {"optimizer.beta1"});
  check_refused(run, train_arguments({"train.micro_batch=3"}), {"train.micro_batch"});
  check_refused(run, train_arguments({"model.hidden=33"}), {"model.hidden"});
  check_refused(run, {"plan", "tiny.json", "--set", "train.sequence=100000"}, {"train.sequence"});

  put(run / "misspelt.json", "{\n  \"train\": {\n    \"stpes\": 5\n  }\n}\n");
  check_refused(run, {"train", "misspelt.json"}, {"misspelt.json:3", "stpes", "steps"});
  put(run / "broken.json", "{\"train\": {\"steps\": }}");
  check_refused(run, {"train", "broken.json"}, {"broken.json"});
}

TEST_CASE("data that do not serve are found before the first step", "[cli]") {
  const TinyRun run;
  const fs::path shard = run / "data/train_000000.llmz";
  const auto whole = contents_of(run / "data");
  const auto restore = [&] { put(shard, whole.at("train_000000.llmz")); };

  check_refused(run, train_arguments({"data.path=nowhere"}), {"data.path: nowhere", "llmz data prepare --input"});
  check_refused(run, train_arguments({"data.path=", "data.train=no*.bin"}), {"no*.bin", "llmz data prepare --input"});
  check_refused(run, {"train", "quickstart"}, {"data.path: data/quickstart", "llmz data prepare --input"});
  fs::create_directory(run / "empty");
  check_refused(run, train_arguments({"data.path=empty"}), {"data.path: empty", "llmz data prepare --input"});
  check_refused(run, {"init", "new.json", "--data", "nowhere"}, {"nowhere", "llmz data prepare --input"});
  check_refused(run, train_arguments({"model.vocab_size=200"}), {"257", "200"});

  fs::resize_file(shard, fs::file_size(shard) - 100);
  check_refused(run, {"train", "tiny.json"}, {"train_000000.llmz", "truncated"});
  check_refused(run, {"data", "inspect", "data"}, {"train_000000.llmz"});
  fs::resize_file(shard, 10);
  check_refused(run, {"train", "tiny.json"}, {"train_000000.llmz"});
  fs::remove(shard);
  check_refused(run, {"train", "tiny.json"}, {"train_000000.llmz"});
  restore();

  damage(shard, static_cast<int64_t>(fs::file_size(shard)) - 1);
  check_refused(run, {"data", "inspect", "data"}, {"train_000000.llmz"});
  restore();

  const std::vector<std::string> foreign = {"data.path=", "data.train=ids.bin", "data.validation=ids.bin"};
  put_llmc_shard(run / "ids.bin", 2000, 300);
  check_refused(run, train_arguments(foreign), {"ids.bin", "300", "257"});
  put_llmc_shard(run / "ids.bin", 2000, 200);
  fs::resize_file(run / "ids.bin", 3000);
  check_refused(run, train_arguments(foreign), {"ids.bin", "truncated"});
  fs::remove(run / "ids.bin");
  CHECK(contents_of(run / "data") == whole);
}

TEST_CASE("an output.path with a run in it is not touched unasked", "[cli]") {
  const TinyRun run;
  REQUIRE(run.llmz(train_arguments({"train.steps=2"})).exit_code == 0);
  check_refused(run, {"train", "tiny.json"}, {"--resume", "--overwrite"});
  // What is wrong must be found before --overwrite removes anything.
  check_refused(run, train_arguments({"data.path=nowhere"}, {"--overwrite"}), {"nowhere"});
  check_refused(run, train_arguments({"model.vocab_size=200"}, {"--overwrite"}), {"200"});
  check_refused(run, train_arguments({"model.hidden=64", "model.heads=8"}, {"--resume"}), {"model.heads", "8"});

  const Outcome again = run.llmz(train_arguments({"train.steps=3"}, {"--overwrite"}));
  CHECK(again.exit_code == 0);
  CHECK(repeatable_metrics(run / "run/metrics.jsonl").size() == 4);  // 3 steps and the last validation
}

TEST_CASE("damaged checkpoints are refused", "[cli]") {
  const TinyRun run;
  REQUIRE(run.llmz(train_arguments({"train.steps=2"})).exit_code == 0);
  const fs::path weights = run / "run/checkpoints/last/model.safetensors";
  damage(weights, 3000);
  check_refused(run, {"eval", "run/checkpoints/last", "--data", "data"}, {"model.safetensors"});
  check_refused(run, {"generate", "run/checkpoints/last", "--prompt", "the"}, {"model.safetensors"});
  check_refused(run, {"eval", "data", "--data", "data"}, {"no checkpoint"});
  check_refused(run, {"eval", "absent", "--data", "data"}, {"absent"});
}
