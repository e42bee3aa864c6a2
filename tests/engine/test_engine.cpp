#include "llmz/engine/engine.h"

#include <cmath>
#include <limits>
#include <set>

#include "catch.h"
#include "engine/tiny_engine.h"

using namespace llmz;
using namespace llmz::test;
using engine::Engine;
using engine::EngineOptions;

namespace {

EngineOptions small(int64_t micro_batch) {
  EngineOptions o;
  o.model = tiny_model();
  o.model.kv_heads = 2;
  o.micro_batch = micro_batch;
  o.sequence = 16;
  return o;
}

}  // namespace

TEST_CASE("a global batch gives the same step however it is split into micro-batches") {
  const auto [tokens, targets] = random_batch(4 * 16);
  std::vector<std::vector<float>> results;
  std::vector<double> norms;
  for (int64_t micro_batch : {4, 2, 1}) {
    Engine engine(small(micro_batch));
    engine.initialise(3);
    const auto size = static_cast<size_t>(micro_batch * 16);
    engine.begin_step(1);
    for (size_t at = 0; at < tokens.size(); at += size) {
      engine.micro_step(std::span(tokens).subspan(at, size), std::span(targets).subspan(at, size), 1.0f / 64);
    }
    norms.push_back(engine.update(1, 1e-2));
    results.push_back(weights_of(engine));
  }
  CHECK(norms[1] == Approx(norms[0]).epsilon(1e-5));
  CHECK(norms[2] == Approx(norms[0]).epsilon(1e-5));
  // Adam's first step is ±lr wherever the gradient is not tiny; where it is, rounding may change it by a part of lr.
  size_t far = 0;
  for (size_t i = 0; i < results[0].size(); ++i) {
    far += std::abs(results[1][i] - results[0][i]) > 1e-5 || std::abs(results[2][i] - results[0][i]) > 1e-5;
  }
  CHECK(far < results[0].size() / 1000);
}

TEST_CASE("what gradients hold between steps goes into no step") {
  for (const char* architecture : {"llama", "gpt2"}) {  // gpt2: head and embedding add to one gradient
    EngineOptions options = small(2);
    options.model = tiny_model(architecture);
    Engine clean(options), soiled(options);
    for (Engine* engine : {&clean, &soiled}) engine->initialise(3);
    for (int64_t step = 1; step <= 3; ++step) {
      for (const Parameter* p : soiled.model().parameters()) {
        const Tensor grad = p->grad.accumulator();
        std::fill_n(grad.as<float>(), grad.numel(), 1e3f * static_cast<float>(step));
      }
      CAPTURE(architecture, step);
      CHECK(train_step(soiled, step, {.micro_steps = 2}) == train_step(clean, step, {.micro_steps = 2}));
    }
    CHECK((weight_bytes(soiled) == weight_bytes(clean)));
  }
}

TEST_CASE("steps repeat bit for bit, and training lowers the loss") {
  Engine engine(small(4)), again(small(4));
  engine.initialise(3);
  again.initialise(3);
  const auto curve = train(engine, 30);
  CHECK(train(again, 30) == curve);
  CHECK((weight_bytes(engine) == weight_bytes(again)));
  CHECK(curve.front().loss == Approx(std::log(61.0)).margin(1.0));
  CHECK(curve.back().loss < 0.5 * curve.front().loss);
}

TEST_CASE("a digest tells weights apart that differ in one bit, wherever it is") {
  Engine a(small(1)), b(small(1));
  a.initialise(3);
  b.initialise(3);
  const uint64_t digest = a.weights_digest();
  CHECK(b.weights_digest() == digest);
  std::set<uint64_t> seen = {digest};
  for (const Parameter* p : b.model().parameters()) {
    auto* const words = static_cast<uint32_t*>(p->weight.data);
    // The first and the last number: an odd number of them does not fill the digest's words.
    for (uint32_t* word : {words, words + p->weight.numel() - 1}) {
      for (const int bit : {0, 31}) {
        *word ^= 1u << bit;
        seen.insert(b.weights_digest());
        *word ^= 1u << bit;
      }
    }
  }
  CHECK(seen.size() == 1 + 4 * b.model().parameters().size());
  // Two numbers that have changed places.
  float* const w = b.model().parameters().front()->weight.as<float>();
  std::swap(w[0], w[2]);
  CHECK(seen.insert(b.weights_digest()).second);
}

TEST_CASE("planned bytes are allocated bytes") {
  for (bool training : {true, false}) {
    EngineOptions options = small(2);
    options.training = training;
    const MemoryPlan plan = Engine::plan(options);
    const Engine engine(options);
    CHECK(engine.memory_plan().arena_bytes == plan.arena_bytes);
    CHECK(plan.totals().total == plan.arena_bytes);
    CHECK((plan.totals().by_category[static_cast<int>(Category::gradients)] > 0) == training);
  }
}

TEST_CASE("a NaN is found in its step, named, and changes no weight") {
  Engine engine(small(2));
  engine.initialise(3);
  const auto [tokens, targets] = random_batch(32);
  Parameter& victim = *engine.model().parameters()[4];
  victim.weight.as<float>()[7] = std::numeric_limits<float>::quiet_NaN();
  const auto before = weight_bytes(engine);
  engine.begin_step(9);
  engine.micro_step(tokens, targets, 1.0f / 32);
  CHECK_THROWS_WITH(engine.update(9, 1e-3), contains("step 9") && contains("weight " + victim.name));
  CHECK((weight_bytes(engine) == before));
}
