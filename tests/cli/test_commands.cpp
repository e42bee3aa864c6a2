#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "catch.h"
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

TEST_CASE("a run shows what differs from the defaults, or everything, and keeps everything", "[cli]") {
  const TinyRun run;
  const Outcome brief = run.llmz(train_arguments({"train.steps=1", "activations.qkv.codec=quant"}));
  INFO(brief.err);
  REQUIRE(brief.exit_code == 0);
  CHECK_THAT(brief.err, contains("\"qkv\": {\n      \"codec\": \"quant\"\n    }"));
  CHECK_THAT(brief.err, !contains("random_refresh"));
  const std::string kept = io::read_text(run / "run/config.json");
  CHECK_THAT(kept, contains("random_refresh"));
  CHECK(json::parse(io::read_text(run / "run/checkpoints/last/llmz.json"))["config"] == json::parse(kept));

  const Outcome full =
      run.llmz(train_arguments({"train.steps=1", "activations.qkv.codec=quant"}, {"--overwrite", "--verbose"}));
  INFO(full.err);
  REQUIRE(full.exit_code == 0);
  CHECK_THAT(full.err, contains(kept.substr(0, kept.find_last_of('}'))));
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
  for (const char* name : {"processor", "instructions", "threads", "memory", "matrix products", "bf16 products", "disk",
                           "oneDNN", "CUDA", "attention", "NCCL", "MPI"}) {
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
                                                          {"bench", "step"},
                                                          {"init"},
                                                          {"help"},
                                                          {"version"}};
  for (std::vector<std::string> command : commands) {
    command.push_back("--help");
    const Outcome outcome = run_llmz(scratch.path(), command);
    CAPTURE(command);
    CHECK(outcome.exit_code == 0);
    CHECK_THAT(outcome.out, contains("Example:\n  llmz ") && contains("--help"));
  }
}

TEST_CASE("bare llmz, help and version show the way", "[cli]") {
  const ScratchFolder scratch;
  const auto said = [&](const std::vector<std::string>& arguments) {
    const Outcome outcome = run_llmz(scratch.path(), arguments);
    CAPTURE(arguments, outcome.err);
    CHECK(outcome.exit_code == 0);
    CHECK(outcome.err.empty());
    return outcome.out;
  };
  const std::string help = said({});
  CHECK_THAT(help, contains("llmz init --data") && contains("llama-60m-c4") && contains("compact_n4"));
  CHECK(said({"help"}) == help);
  CHECK(said({"--help"}) == help);
  CHECK(said({"help", "train"}) == said({"train", "--help"}));
  CHECK(said({"help", "bench", "step"}) == said({"bench", "step", "--help"}));
  CHECK(said({"version"}) == said({"--version"}));
  CHECK(said({"version"}).starts_with("llmz "));
}

TEST_CASE("names of models and configurations are known in any folder", "[cli]") {
  const ScratchFolder scratch;
  const auto total = [&](const std::vector<std::string>& arguments) {
    return json_of(run_llmz(scratch.path(), arguments))["total"].get<int64_t>();
  };
  const int64_t named = total({"plan", "llama-60m-c4", "--json"});
  CHECK(named == total({"plan", LLMZ_SOURCE_DIR "/configs/llama-60m-c4.json", "--json"}));
  put(scratch / "run.json", R"({"model": "no-such-model", "train": {"micro_batch": 32, "global_batch": 512}})");
  CHECK(named == total({"plan", "run.json", "--json", "--set", "model=llama-60m"}));
}

TEST_CASE("plan compares presets, shows them, and counts as the papers do", "[cli]") {
  const TinyRun run;
  const json rows = json_of(run.llmz({"plan", "tiny.json", "--compare", "--json"}));
  std::map<std::string, json> by_name;
  for (const json& row : rows) by_name[row["preset"]] = row;
  CHECK(by_name.at("full")["total"] == json_of(run.llmz({"plan", "tiny.json", "--json"}))["total"]);
  for (const char* name :
       {"full", "checkpoint", "compact_n2", "compact_n4", "compact_n8", "prac", "prac_linear", "lean", "fast"}) {
    INFO(name);
    REQUIRE(by_name.count(name) == 1);
    const json alone = json_of(run.llmz({"plan", "tiny.json", "--json", "--set", std::string("preset=") + name}));
    CHECK(by_name[name]["total"] == alone["total"]);
    int64_t sum = 0;
    for (const auto& [role, bytes] : by_name[name]["codes_by_role"].items()) {
      CHECK(role != "other");
      sum += bytes.get<int64_t>();
    }
    CHECK(sum == by_name[name]["codes"].get<int64_t>());
  }
  CHECK(by_name["lean"]["codes"] < by_name["full"]["codes"]);
  CHECK(by_name["lean"]["optimizer"] < by_name["full"]["optimizer"]);
  CHECK(by_name["compact_n8"]["gradients"] < by_name["compact_n4"]["gradients"]);
  CHECK_THAT(run.llmz({"plan", "tiny.json", "--compare"}).out, contains("codes, MB") && contains("MFLOP/token"));

  const Outcome shown = run.llmz({"plan", "--show", "lean"});
  put(run / "shown.json", shown.out);
  CHECK(json_of(run.llmz({"plan", "shown.json", "--json", "--set", "model.hidden=128", "--set", "model.layers=2"}))
            .contains("total"));
  CHECK_THAT(run.llmz({"plan", "--presets"}).out, contains("compact_n4") && contains("CompAct"));
  CHECK(run.llmz({"plan", "--show", "leen"}).exit_code != 0);
  CHECK(run.llmz({"plan"}).exit_code != 0);
}

TEST_CASE("an option takes no words that are another's", "[cli]") {
  const TinyRun run;
  const json plan =
      json_of(run.llmz({"plan", "tiny.json", "--json", "--set", "model.layers=3", "--set", "train.seed=2"}));
  CHECK(json_of(run.llmz({"plan", "--json", "--set", "model.layers=3", "tiny.json", "--set", "train.seed=2"})) == plan);
  CHECK(json_of(run.llmz({"plan", "--set", "model.layers=3", "--set", "train.seed=2", "tiny.json", "--json"})) == plan);
  REQUIRE(run.llmz({"train", "--set", "train.steps=1", "tiny.json"}).exit_code == 0);
  CHECK(json_of(run.llmz({"eval", "--json", "--max-batches", "1", "--data", "data", "run"})).contains("loss"));
}

TEST_CASE("a run tells the errors of its codes and the spectra that its refreshes saw, also when it is resumed",
          "[cli]") {
  const TinyRun run;
  const std::vector<std::string> settings = {"preset=prac_linear", "activations.qkv_input.refresh=4",
                                             "train.diagnostics=3", "train.steps=6", "output.save_every=5"};
  REQUIRE(run.llmz(train_arguments(settings)).exit_code == 0);
  const auto lines = [&](const std::string& name) {
    std::ifstream in(run / "run" / name);
    std::vector<json> all;
    for (std::string line; std::getline(in, line);) all.push_back(json::parse(line));
    return all;
  };
  const auto errors = lines("diagnostics.jsonl");
  REQUIRE(!errors.empty());
  bool code = false, gradient = false;
  for (const json& e : errors) {
    CHECK(e["step"].get<int64_t>() % 3 == 0);
    CHECK(e["relative_error"].get<double>() > 0);
    CHECK(e["relative_error"].get<double>() < 2);
    code |= e.contains("code");
    gradient |= e.contains("gradient");
  }
  CHECK((code && gradient));
  const auto spectra = lines("spectra.jsonl");
  std::set<int64_t> steps;
  for (const json& s : spectra) {
    steps.insert(s["step"].get<int64_t>());
    CHECK(s["energy"].get<double>() > 0);
    double sum = 0;
    for (const json& value : s["eigenvalues"]) sum += value.get<double>();
    CHECK(sum <= s["energy"].get<double>() * 1.001);
    CHECK(sum > 0.2 * s["energy"].get<double>());
  }
  CHECK(steps == std::set<int64_t>{1, 5});

  std::vector<std::string> longer = settings;
  longer[3] = "train.steps=9";
  REQUIRE(run.llmz(train_arguments(longer, {"--resume"})).exit_code == 0);
  CHECK(lines("diagnostics.jsonl").back()["step"] == 9);
}

TEST_CASE("plan of LLaMA-350M reproduces CompAct's table: 7.0 GB of activations become 5.75, 2.87, 1.44", "[cli]") {
  const TinyRun run;
  put(run / "350m.json", R"({"model": {"hidden": 1024, "intermediate": 2736, "heads": 16, "layers": 24},
                             "train": {"micro_batch": 128, "global_batch": 128, "sequence": 256}})");
  const std::string table = run.llmz({"plan", "350m.json", "--accounting", "paper"}).out;
  const auto row = [&](const std::string& name) {
    const size_t at = table.find("\n" + name);
    REQUIRE(at != std::string::npos);
    return table.substr(at + 1, table.find('\n', at + 1) - at - 1);
  };
  CHECK_THAT(row("full"), contains("7.01"));
  CHECK_THAT(row("compact_n2"), contains("5.75"));
  CHECK_THAT(row("compact_n4"), contains("2.88"));  // the paper cuts: 2.87
  CHECK_THAT(row("compact_n8"), contains("1.44"));
}

TEST_CASE("a model of 65 billion parameters is compared at once, without its memory", "[cli]") {
  const TinyRun run;
  put(run / "65b.json",
      R"({"model": {"hidden": 8192, "intermediate": 22016, "heads": 64, "layers": 80, "context": 2048},
                            "precision": "fp32", "train": {"micro_batch": 1, "global_batch": 1, "sequence": 2048}})");
  const json rows = json_of(run.llmz({"plan", "65b.json", "--compare", "--json"}));
  CHECK(rows[0]["weights"].get<double>() > 4 * 64e9);
}

TEST_CASE("bench presets runs each preset in a process of its own", "[cli]") {
  const TinyRun run;
  const json rows = json_of(run.llmz({"bench", "presets", "--config", "tiny.json", "--presets", "full,lean", "--rounds",
                                      "2", "--repeat", "1", "--json"}));
  REQUIRE(rows.size() == 2);
  CHECK(rows[0]["ratios"] == json::array({1.0, 1.0}));
  CHECK(rows[1]["ratios"].size() == 2);
  CHECK(rows[1]["planned_bytes"] < rows[0]["planned_bytes"]);
  CHECK(run.llmz({"bench", "presets", "--presets", "fulll"}).exit_code != 0);
}
