#include <nlohmann/json.hpp>

#include "catch.h"
#include "llmz/io/checkpoint.h"
#include "llmz/io/files.h"
#include "tiny_run.h"

using namespace llmz::testing;
namespace io = llmz::io;
using nlohmann::json;

namespace {

json json_of(const Outcome& outcome) {
  INFO(outcome.err);
  REQUIRE(outcome.exit_code == 0);
  return json::parse(outcome.out);
}

/// `plan` tells what `train` allocated.
void check_plan(const TinyRun& run, const Outcome& trained) {
  const Outcome plan = run.llmz({"plan", "tiny.json"});
  const std::string table = plan.out.substr(plan.out.find("memory at its peak"));
  CHECK_THAT(trained.err, contains(table));
  const json totals = json_of(run.llmz({"plan", "tiny.json", "--json"}));
  int64_t sum = 0;
  for (const auto& [name, bytes] : totals.items()) {
    if (name != "total" && bytes.is_number()) sum += bytes.get<int64_t>();
  }
  CHECK(sum == totals["total"].get<int64_t>());
  CHECK_THAT(table, contains(fmt::format("{:>17}", fmt::group_digits(totals["total"].get<int64_t>()))));
}

/// `eval` repeats the validation loss of training.
void check_eval(const TinyRun& run, double validation) {
  const json all = json_of(run.llmz({"eval", "run", "--data", "data", "--json"}));
  CHECK(all["perplexity"].get<double>() == Approx(std::exp(all["loss"].get<double>())));
  CHECK(all["bits_per_byte"].get<double>() > 0);
  const json part = json_of(
      run.llmz({"eval", "run/checkpoints/last", "--data", "data", "--json", "--batch", "4", "--max-batches", "4"}));
  CHECK(part["loss"].get<double>() == Approx(validation).epsilon(1e-6));
  const json more_context = json_of(run.llmz({"eval", "run", "--data", "data", "--json", "--stride", "8"}));
  CHECK(more_context["tokens"] == all["tokens"]);
  CHECK(more_context["loss"] != all["loss"]);
  CHECK_THAT(run.llmz({"eval", "run", "--data", "data"}).out, contains("perplexity"));
}

/// `generate` draws the same text from the same seed.
void check_generate(const TinyRun& run) {
  const auto text = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments = {"generate", "run", "--prompt", "the old king", "--tokens", "40"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome outcome = run.llmz(arguments);
    INFO(outcome.err);
    REQUIRE(outcome.exit_code == 0);
    CHECK(outcome.out.starts_with("the old king"));
    return outcome.out;
  };
  CHECK(text({"--seed", "3", "--temperature", "1"}) == text({"--seed", "3", "--temperature", "1"}));
  CHECK(text({"--seed", "3", "--temperature", "1"}) != text({"--seed", "4", "--temperature", "1"}));
  CHECK(text({"--seed", "3", "--temperature", "0"}) == text({"--seed", "4", "--temperature", "0"}));
  CHECK(text({"--top-k", "1", "--temperature", "1"}) == text({"--temperature", "0"}));
}

/// `grads` writes a gradient for every weight.
void check_grads(const TinyRun& run) {
  const Outcome outcome = run.llmz({"grads", "run", "--tokens", "data/train_000000.llmz", "--rows", "2", "--sequence",
                                    "16", "--out", "g.safetensors"});
  INFO(outcome.err);
  CHECK(outcome.exit_code == 0);
  CHECK_THAT(outcome.out, contains("over 2 x 16 tokens"));
  const std::string file = io::read_text(run / "g.safetensors");
  for (const char* name :
       {"loss", "model.embed_tokens.weight", "model.layers.1.mlp.down_proj.weight", "lm_head.weight"}) {
    CHECK(file.find("\"" + std::string(name) + "\"") != std::string::npos);
  }
}

}  // namespace

TEST_CASE("train, eval, generate, plan and grads work one after the other", "[cli]") {
  const TinyRun run;
  const Outcome trained = run.llmz({"train", "tiny.json"});
  INFO(trained.err);
  REQUIRE(trained.exit_code == 0);
  CHECK_THAT(trained.out, contains("trained 20 steps"));
  const auto metrics = repeatable_metrics(run / "run/metrics.jsonl");
  REQUIRE(metrics.size() == 22);  // 20 steps and 2 validations
  const double first = json::parse(metrics.front())["loss"],
               validation = json::parse(metrics.back())["validation_loss"];
  CHECK(first == Approx(std::log(257)).margin(0.1));  // nothing learnt: all bytes alike
  CHECK(validation < first - 0.5);

  check_plan(run, trained);
  check_eval(run, validation);
  check_generate(run);
  check_grads(run);
}

TEST_CASE("a full disk while a checkpoint is written leaves the earlier one", "[cli]") {
  const TinyRun run;
  REQUIRE(run.llmz({"train", "tiny.json"}).exit_code == 0);
  const auto before = contents_of(run / "run/checkpoints");
  // Between the size of the metrics, which still fit, and that of the weights.
  const Outcome full = run.llmz(train_arguments({"train.steps=30"}, {"--resume"}), {.file_size_limit = 20'000});
  CHECK(full.exit_code == 1);
  CHECK_THAT(full.last_error_line(), contains("llmz: ") && contains("model.safetensors") && contains("bytes"));
  CHECK(contents_of(run / "run/checkpoints") == before);
  CHECK(run.llmz({"eval", "run", "--data", "data"}).exit_code == 0);
  const Outcome resumed = run.llmz(train_arguments({"train.steps=30"}, {"--resume"}));
  CHECK(resumed.exit_code == 0);
  CHECK_THAT(resumed.err, contains("resumed after step 20"));
}

TEST_CASE("doctor names what it found and finds nothing broken", "[cli]") {
  const ScratchFolder scratch;
  const json found = json_of(run_llmz(scratch.path(), {"doctor", "--json"}));
  std::set<std::string> names;
  for (const auto& finding : found["findings"]) {
    CHECK(finding["state"] != "broken");
    CHECK(finding["what"] != "");
    names.insert(finding["name"].get<std::string>());
  }
  for (const char* name : {"processor", "instructions", "threads", "memory", "disk", "oneDNN", "CUDA", "NCCL", "MPI"}) {
    CHECK(names.contains(name));
  }
  CHECK_THAT(run_llmz(scratch.path(), {"doctor"}).out, contains("oneDNN"));
}

TEST_CASE("bench measures products, ops and steps", "[cli]") {
  const TinyRun run;
  const json matmul = json_of(run.llmz({"bench", "matmul", "--json", "--tokens", "64", "--hidden", "32",
                                        "--intermediate", "48", "--vocabulary", "100", "--seconds", "0.001"}));
  CHECK(matmul["products"].size() == 15);  // 5 linears of a block and the head, 3 products each
  for (const auto& product : matmul["products"]) CHECK(product["gflops"].get<double>() > 0);

  const json ops =
      json_of(run.llmz({"bench", "ops", "--json", "--batch", "2", "--sequence", "32", "--hidden", "32", "--heads", "2",
                        "--intermediate", "48", "--vocabulary", "100", "--seconds", "0.001"}));
  CHECK(ops["ops"].size() >= 20);
  for (const auto& op : ops["ops"]) CHECK(op["seconds_median"].get<double>() >= op["seconds_best"].get<double>());

  const json step = json_of(run.llmz({"bench", "step", "--json", "--config", "tiny.json", "--repeat", "2"}));
  CHECK(step["planned_bytes"] == step["allocated_bytes"]);
  CHECK(step["planned_bytes"] == json_of(run.llmz({"plan", "tiny.json", "--json"}))["total"]);
  // Attention of 2 layers, 32 wide, over 32 tokens: 6·2·32·33 a token.
  CHECK(step["all_parameters"]["flops_per_token"] == 6 * step["parameters"].get<double>() + 6 * 2 * 32 * 33);
  CHECK(step["parameters"].get<int64_t>() - step["matmul_parameters"].get<int64_t>() == 257 * 32 + 5 * 32);
  CHECK(step["tokens_per_second"].get<double>() > 0);
}

TEST_CASE("every command has help with an example", "[cli]") {
  const ScratchFolder scratch;
  const std::vector<std::vector<std::string>> commands = {{},
                                                          {"data"},
                                                          {"data", "prepare"},
                                                          {"data", "inspect"},
                                                          {"train"},
                                                          {"eval"},
                                                          {"generate"},
                                                          {"plan"},
                                                          {"grads"},
                                                          {"doctor"},
                                                          {"bench"},
                                                          {"bench", "matmul"},
                                                          {"bench", "ops"},
                                                          {"bench", "step"}};
  for (std::vector<std::string> command : commands) {
    command.push_back("--help");
    const Outcome outcome = run_llmz(scratch.path(), command);
    CAPTURE(command);
    CHECK(outcome.exit_code == 0);
    CHECK_THAT(outcome.out, contains("Example:\n  llmz ") && contains("--help"));
  }
}

TEST_CASE("the process stays within its plan and what libraries need", "[cli]") {
  const TinyRun run;
  const json step =
      json_of(run.llmz({"bench", "step", "--json", "--model", LLMZ_SOURCE_DIR "/configs/models/llama-35m.json",
                        "--micro-batch", "2", "--sequence", "256", "--repeat", "2"}));
  const double planned = step["planned_bytes"].get<double>();
  CHECK(planned > 600e6);
  CHECK(step["allocated_bytes"] == step["planned_bytes"]);
  CHECK(step["peak_resident_bytes"].get<double>() < 1.05 * planned + 200e6);  // the bound of docs/architecture.md
}
