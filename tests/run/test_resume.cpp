// What a run goes on with: in another precision, with another configuration.
#include <cstring>

#include "catch.h"
#include "engine/tiny_engine.h"
#include "llmz/run/checkpoint.h"
#include "llmz/run/config_io.h"
#include "run/temp_folder.h"
#include "src/run/resume.h"

using namespace llmz;
using namespace llmz::run;

namespace {

RunConfig tiny(const std::string& architecture) {
  RunConfig run;
  run.model = test::tiny_model(architecture);
  return run;
}

engine::EngineOptions options_of(const RunConfig& run, DType type) {
  return {.model = run.model,
          .build = {.precision = {.weight = type, .activation = type}},
          .micro_batch = 2,
          .sequence = 8};
}

}  // namespace

TEST_CASE("a run of fp32 that goes on in bf16 starts its master copies at the weights that were saved") {
  for (const char* architecture : {"llama", "gpt2"}) {
    INFO(architecture);
    const test::TempFolder temp;
    const RunConfig run = tiny(architecture);
    engine::Engine saved(options_of(run, DType::f32));
    saved.initialise(1);
    save_checkpoint(temp.path() / "c", saved, run, nullptr, {.step = 1});
    engine::Engine other(options_of(run, DType::bf16));
    other.initialise(2);
    load_checkpoint(temp.path() / "c", other);
    size_t masters = 0;
    for (const auto& state : other.optimizer().states()) {
      if (state.slot != "master") continue;
      const Tensor& weight = saved.model().parameters().at(masters++)->weight;
      INFO(state.parameter->name);
      REQUIRE(state.tensor.bytes() == weight.bytes());
      CHECK(std::memcmp(state.tensor.data, weight.data, weight.bytes()) == 0);
    }
    CHECK(masters == saved.model().parameters().size());
  }
}

TEST_CASE("a list that becomes another, longer, shorter or empty, is a change") {
  const auto parse = [](const std::string& json) { return parse_run_config(json, "run.json"); };
  const auto changes = [&](const std::string& a, const std::string& b) { return changes_since(parse(a), parse(b)); };
  using Changes = std::vector<std::string>;
  const std::string one = R"({"optimizer": {"rules": [{"use": "adamw"}]}})";
  const std::string two = R"({"optimizer": {"rules": [{"use": "adamw"}, {"use": "adamw_factored"}]}})";
  CHECK(changes(two, two).empty());
  for (const auto& [from, to] : {std::pair{one, two}, {two, one}, {one, "{}"}, {"{}", one}}) {
    const Changes found = changes(from, to);
    REQUIRE(found.size() == 1);
    CHECK_THAT(found[0], contains("optimizer.rules: [") && contains("\"use\":\"adamw\""));
  }
  CHECK(changes(R"({"data": {"train": ["a", "b"]}})", R"({"data": {"train": ["a"]}})") ==
        Changes{R"(data.train: ["a","b"] -> ["a"])"});
  CHECK(changes(R"({"data": {"validation": ["a"]}})", "{}") == Changes{R"(data.validation: ["a"] -> [])"});
}

TEST_CASE("a checkpoint of another method names all keys that decide what is kept") {
  const test::TempFolder temp;
  const RunConfig run = tiny("llama");
  engine::Engine saved(options_of(run, DType::f32));
  saved.initialise(1);
  save_checkpoint(temp.path() / "c", saved, run, nullptr, {.step = 1});
  engine::EngineOptions options = options_of(run, DType::f32);
  options.optimizer.rules = {{.name = "adamw_factored", .settings = {}}};
  engine::Engine other(options);
  CHECK_THROWS_WITH(load_checkpoint(temp.path() / "c", other),
                    contains("exp_avg_sq_row") && contains("optimizer.rules") && contains("optimizer.name") &&
                        contains("optimizer.moments") && contains("weight_gradient"));
}
