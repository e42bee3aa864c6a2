#include <nlohmann/json.hpp>
#include <sstream>

#include "catch.h"
#include "llmz/io/files.h"
#include "tiny_run.h"

using namespace llmz::testing;
namespace io = llmz::io;
using nlohmann::json;

namespace {

json config_of(const fs::path& file) {
  return json::parse(io::read_text(file), nullptr, true, /*ignore_comments=*/true);
}

/// What the comments of a file say, in one line.
std::string comments_of(const fs::path& file) {
  std::istringstream lines(io::read_text(file));
  std::string text;
  for (std::string line; std::getline(lines, line);) {
    const size_t at = line.find("// ");
    if (at != std::string::npos) text += line.substr(at + 3) + " ";
  }
  return text;
}

/// Above every key that holds no object stands a comment.
void check_explained(const fs::path& file) {
  std::istringstream lines(io::read_text(file));
  bool explained = false;
  int keys = 0;
  for (std::string line; std::getline(lines, line);) {
    const bool comment = line.find("//") != std::string::npos;
    if (line.find("\":") != std::string::npos && !line.ends_with("{")) {
      INFO(line);
      CHECK(explained);
      ++keys;
    }
    explained = comment;
  }
  CHECK(keys >= 12);
}

void check_refused(const TinyRun& run, const std::vector<std::string>& more, const std::string& reason) {
  std::vector<std::string> arguments = {"init", "--data", "data", "new.json"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  const Outcome outcome = run.llmz(arguments);
  CAPTURE(arguments, outcome.err);
  CHECK(outcome.exit_code > 0);
  CHECK(outcome.error_lines() == 1);
  CHECK_THAT(outcome.err, contains(reason));
  CHECK(!fs::exists(run / "new.json"));
}

}  // namespace

TEST_CASE("init writes a configuration that can be planned and trained as it stands", "[cli]") {
  const TinyRun run;
  const Outcome made = run.llmz({"init", "--data", "data", "--memory", "2GB", "mine.json"});
  INFO(made.err);
  REQUIRE(made.exit_code == 0);
  CHECK_THAT(made.err, contains("llmz train mine.json"));
  check_explained(run / "mine.json");
  const json config = config_of(run / "mine.json");
  CHECK(config["model"]["base"] == "llama-3m");  // little text: the smallest
  CHECK(config["model"]["vocab_size"] == 257);
  CHECK(config["preset"] == "full");
  CHECK(config["output"]["path"] == "out/mine");
  CHECK(config["train"]["global_batch"].get<int64_t>() % config["train"]["micro_batch"].get<int64_t>() == 0);

  const Outcome plan = run.llmz({"plan", "mine.json", "--json"});
  REQUIRE(plan.exit_code == 0);
  CHECK(1.05 * json::parse(plan.out)["total"].get<double>() + 200e6 < 2e9);
  const Outcome trained = run.llmz({"train", "mine.json", "--set", "train.steps=1", "--set", "train.eval_batches=1"});
  INFO(trained.err);
  CHECK(trained.exit_code == 0);
}

TEST_CASE("init takes a preset and a micro-batch that fit the memory", "[cli]") {
  const TinyRun run;
  const auto config = [&](const char* model, const char* memory) {
    const Outcome made =
        run.llmz({"init", "--data", "data", "--model", model, "--memory", memory, "mine.json", "--overwrite"});
    INFO(made.err);
    REQUIRE(made.exit_code == 0);
    const Outcome plan = run.llmz({"plan", "mine.json", "--json"});
    REQUIRE(plan.exit_code == 0);
    CHECK(1.05 * json::parse(plan.out)["total"].get<double>() + 200e6 < std::stod(memory) * 1e9);
    return config_of(run / "mine.json");
  };
  const json tight = config("llama-3m", "0.25GB");
  CHECK(tight["preset"] != "full");  // which would fit with fewer windows
  CHECK(tight["train"]["micro_batch"] == 8);
  CHECK_THAT(comments_of(run / "mine.json"), contains("the most exact that fits with 2048 tokens at once"));
  const json large = config("llama-60m", "8GB"), small = config("llama-60m", "0.8GB");
  CHECK(large["preset"] == "full");
  CHECK(small["preset"] != "full");
  check_refused(run, {"--model", "llama-60m", "--memory", "300MB"}, "llama-60m takes ");

  // What a larger model takes at least, to ten megabytes: enough for a window or two.
  const std::string refusal =
      run.llmz({"init", "--data", "data", "--model", "llama-350m", "--memory", "300MB", "x"}).err;
  const double least = std::stod(refusal.substr(refusal.find("takes ") + 6));
  const json least_of_all = config("llama-350m", fmt::format("{:.3f}GB", 1.05 * (least + 0.005) + 0.201).c_str());
  CHECK(least_of_all["train"]["micro_batch"] < 8);
  CHECK_THAT(comments_of(run / "mine.json"), contains("none fits with 2048 tokens at once"));
}

TEST_CASE("init counts the steps that a time is enough for at the speed that it measures", "[cli]") {
  const TinyRun run;
  const auto steps = [&](const char* time) {
    const Outcome made =
        run.llmz({"init", "--data", "data", "--model", "llama-3m", "--time", time, "mine.json", "--overwrite"});
    INFO(made.err);
    REQUIRE(made.exit_code == 0);
    CHECK_THAT(made.out, contains("tokens/s measured"));
    return config_of(run / "mine.json")["train"]["steps"].get<int64_t>();
  };
  const int64_t few = steps("1s"), all = steps("10d");
  CHECK(few < all);
  check_explained(run / "mine.json");
}

TEST_CASE("init says what is wrong and writes nothing", "[cli]") {
  const TinyRun run;
  check_refused(run, {"--memory", "much"}, "'much' must be a number above 0 with a unit: MB, GB");
  check_refused(run, {"--memory", "8"}, "unit");
  check_refused(run, {"--time", "0h"}, "--time");
  check_refused(run, {"--preset", "leen"}, "leen");
  check_refused(run, {"--model", "llama-61m"}, "did you mean \"llama-60m\"?");
  CHECK(run.llmz({"init", "--data", "nowhere", "new.json"}).exit_code > 0);
  CHECK(run.llmz({"init", "--data", "data", "nowhere/new.json"}).exit_code > 0);

  const std::string before = io::read_text(run / "tiny.json");
  const Outcome refused = run.llmz({"init", "--data", "data", "tiny.json"});
  CHECK(refused.exit_code > 0);
  CHECK_THAT(refused.err, contains("tiny.json is there already") && contains("--overwrite"));
  CHECK(io::read_text(run / "tiny.json") == before);
}
