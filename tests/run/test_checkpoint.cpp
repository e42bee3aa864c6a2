#include <fstream>

#include "catch.h"
#include "engine/tiny_engine.h"
#include "llmz/run/checkpoint.h"
#include "run/temp_folder.h"
#include "src/run/resume.h"

using namespace llmz;
using namespace llmz::engine;
using namespace llmz::run;
namespace fs = std::filesystem;

namespace {

RunConfig run_config(const char* architecture) {
  RunConfig run;
  run.model = test::tiny_model(architecture);
  run.model.vocab_size = 257;  // bytes and an end of text
  run.train.sequence = 8;
  return run;
}

EngineOptions options_of(const RunConfig& run) { return {.model = run.model, .micro_batch = 2, .sequence = 8}; }

/// Each step on a batch of its own.
void train_steps(Engine& engine, int64_t first, int64_t count) {
  for (int64_t step = first; step < first + count; ++step) {
    test::train_step(engine, step, {.first = 100 * static_cast<uint64_t>(step)});
  }
}

bool same_weights(Engine& a, Engine& b) { return test::weight_bytes(a) == test::weight_bytes(b); }

}  // namespace

TEST_CASE("a checkpoint brings back weights, moments, state and tokenizer; training goes on bit for bit") {
  for (const char* architecture : {"llama", "gpt2"}) {
    INFO(architecture);
    const test::TempFolder temp;
    const RunConfig run = run_config(architecture);
    Engine engine(options_of(run));
    engine.initialise(1);
    train_steps(engine, 1, 3);
    const auto tokenizer = text::load_tokenizer("bytes");
    save_checkpoint(temp.path() / "c", engine, run, tokenizer.get(), {.step = 3, .tokens = 48, .best_validation = 5.5});

    Engine other(options_of(run));
    other.initialise(2);
    const TrainState state = load_checkpoint(temp.path() / "c", other);
    CHECK(state.step == 3);
    CHECK(state.tokens == 48);
    CHECK(state.best_validation == 5.5);
    CHECK(state.last_validation == std::numeric_limits<double>::infinity());
    CHECK(same_weights(engine, other));
    train_steps(engine, 4, 3);
    CHECK(!same_weights(engine, other));
    train_steps(other, 4, 3);
    CHECK(same_weights(engine, other));

    const CheckpointHeader header = open_model(temp.path() / "c");
    CHECK(header.model.architecture == architecture);
    CHECK(header.run->train.sequence == 8);
    CHECK(header.tokenizer->hash() == tokenizer->hash());
  }
}

TEST_CASE("Hugging Face's config.json and model.safetensors alone are a model too") {
  const test::TempFolder temp;
  const RunConfig run = run_config("gpt2");
  Engine engine(options_of(run));
  engine.initialise(1);
  save_checkpoint(temp.path() / "c", engine, run, nullptr, {});
  fs::create_directory(temp.path() / "hf");
  for (const char* file : {"config.json", "model.safetensors"}) {
    fs::copy(temp.path() / "c" / file, temp.path() / "hf" / file);
  }
  const CheckpointHeader header = open_model(temp.path() / "hf");
  CHECK(!header.state.has_value());
  Engine other({.model = header.model, .micro_batch = 2, .sequence = 8});
  load_weights(header.folder, other.model(), other.memory());
  CHECK(same_weights(engine, other));
}

TEST_CASE("damaged, foreign and unfitting checkpoints are refused by name") {
  const test::TempFolder temp;
  const RunConfig run = run_config("llama");
  Engine engine(options_of(run));
  engine.initialise(1);
  const fs::path folder = temp.path() / "c";
  save_checkpoint(folder, engine, run, nullptr, {.step = 1});

  RunConfig wider = run;
  wider.model.hidden = 32;
  Engine other(options_of(wider));
  CHECK_THROWS_WITH(load_checkpoint(folder, other), contains("model.embed_tokens.weight"));
  CHECK_THROWS_WITH(open_model(temp.path()), contains("is no checkpoint"));
  CHECK_THROWS_WITH(open_model(temp.path() / "absent"), contains("no checkpoint at"));

  std::fstream file(folder / "model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(-5, std::ios::end);
  file.put('\x7f');
  file.close();
  CHECK_THROWS_WITH(open_model(folder), contains("model.safetensors"));
}

TEST_CASE("a run goes on with a changed configuration only where its batches and tensors stay the same") {
  const RunConfig saved = run_config("llama");
  CHECK(changes_since(saved, saved).empty());
  RunConfig now = saved;
  now.train.steps = 2000;
  now.optimizer.lr_scale.head = 0.5f;
  const auto changes = changes_since(saved, now);
  REQUIRE(changes.size() == 2);
  CHECK(changes[0] == "optimizer.lr_scale.head: 1.0 -> 0.5");
  CHECK(changes[1] == "train.steps: 1000 -> 2000");

  now = saved;
  now.train.global_batch = 16;
  CHECK_THROWS_WITH(changes_since(saved, now), contains("train.global_batch was 8") && contains("is 16 now"));
  now = saved;
  now.train.seed = 2;
  CHECK_THROWS_WITH(changes_since(saved, now), contains("train.seed"));
  now = saved;
  now.model.heads = 2;
  CHECK_THROWS_WITH(changes_since(saved, now), contains("model.heads"));
}
