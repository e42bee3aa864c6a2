#include <cmath>

#include "catch.h"
#include "engine/tiny_engine.h"
#include "llmz/run/checkpoint.h"
#include "llmz/run/generate.h"
#include "run/temp_folder.h"

using namespace llmz;
using namespace llmz::engine;
using namespace llmz::run;

namespace {

/// A checkpoint of random weights.
CheckpointHeader random_checkpoint(const std::filesystem::path& folder, model::ModelConfig config) {
  RunConfig run;
  run.model = config;
  run.train.sequence = 8;
  Engine engine({.model = config, .micro_batch = 1, .sequence = 8});
  engine.initialise(17);
  save_checkpoint(folder, engine, run, nullptr, {});
  return open_model(folder);
}

std::vector<int32_t> greedy(const CheckpointHeader& header, const std::vector<int32_t>& prompt, int64_t count) {
  Generator generator(header, static_cast<int64_t>(prompt.size()), count);
  std::vector<int32_t> out;
  SamplingOptions options;
  options.temperature = 0;
  generator.run(prompt, options, -1, [&](int32_t id) {
    out.push_back(id);
    return true;
  });
  return out;
}

}  // namespace

TEST_CASE("generation with the key/value cache equals a fresh pass over the whole text") {
  const test::TempFolder temp;
  model::ModelConfig llama = test::tiny_model("llama"), gpt2 = test::tiny_model("gpt2");
  llama.kv_heads = 2;
  llama.context = gpt2.context = 400;
  for (const auto& config : {llama, gpt2}) {
    INFO(config.architecture);
    const auto header = random_checkpoint(temp.path() / config.architecture, config);
    std::vector<int32_t> text = {3, 1, 4, 1, 5};
    const auto cached = greedy(header, text, 12);
    REQUIRE(cached.size() == 12);
    for (int32_t token : cached) {
      CHECK(greedy(header, text, 1).front() == token);
      text.push_back(token);
    }
    CHECK_THROWS_WITH(Generator(header, 300, 101), contains("context of 400"));
    CHECK(greedy(header, text, 300).size() == 300);  // the cache grows past every rounding of a workspace
  }
}

TEST_CASE("sampling follows temperature, top-k and top-p") {
  const std::vector<float> logits = {std::log(0.1f), std::log(0.4f), std::log(0.2f), std::log(0.3f)};
  const auto frequencies = [&](const SamplingOptions& options) {
    const RandomStream random(2, Purpose::test);
    std::vector<double> counts(4);
    for (uint64_t i = 0; i < 20000; ++i) {
      counts[static_cast<size_t>(sample_token(logits, options, static_cast<double>(random.uniform(i))))] += 1.0 / 20000;
    }
    return counts;
  };
  const double noise = 4 * std::sqrt(0.25 / 20000);  // four standard errors of a frequency
  SamplingOptions options{.temperature = 1, .top_k = 0, .top_p = 1, .seed = 1};
  auto f = frequencies(options);
  CHECK(f[0] == Approx(0.1).margin(noise));
  CHECK(f[1] == Approx(0.4).margin(noise));
  CHECK(f[2] == Approx(0.2).margin(noise));
  CHECK(f[3] == Approx(0.3).margin(noise));

  options.top_k = 2;  // 0.4 and 0.3 remain
  f = frequencies(options);
  CHECK(f[1] == Approx(4.0 / 7).margin(noise));
  CHECK(f[3] == Approx(3.0 / 7).margin(noise));

  options.top_k = 0;
  options.top_p = 0.85;  // 0.4 + 0.3 + 0.2 is the first sum that reaches it
  f = frequencies(options);
  CHECK(f[0] == 0);
  CHECK(f[2] == Approx(2.0 / 9).margin(noise));

  options = {.temperature = 0.5, .top_k = 0, .top_p = 1, .seed = 1};  // probabilities squared
  f = frequencies(options);
  CHECK(f[1] == Approx(0.16 / 0.30).margin(noise));

  options.temperature = 0;
  CHECK(sample_token(logits, options, 1.0) == 1);
}
