#include <cmath>
#include <cstring>
#include <limits>
#include <set>

#include "catch.h"
#include "llmz/core/random.h"
#include "llmz/engine/engine.h"

using namespace llmz;
using engine::Engine;
using engine::EngineOptions;

namespace {

EngineOptions small(int64_t micro_batch) {
  EngineOptions o;
  o.model = {.architecture = "llama",
             .vocab_size = 61,
             .hidden = 24,
             .intermediate = 40,
             .layers = 2,
             .heads = 4,
             .kv_heads = 2,
             .context = 32,
             .init_std = 0.2f};
  o.micro_batch = micro_batch;
  o.sequence = 16;
  return o;
}

std::vector<int32_t> random_ids(size_t count, uint64_t first) {
  const RandomStream random(5, Purpose::test);
  std::vector<int32_t> ids(count);
  for (size_t i = 0; i < count; ++i) ids[i] = static_cast<int32_t>(random.below(4 * (first + i), 61));
  return ids;
}

std::vector<float> weights_of(Engine& engine) {
  std::vector<float> all;
  for (const Parameter* p : engine.model().parameters()) {
    const float* w = p->weight.as<float>();
    all.insert(all.end(), w, w + p->weight.numel());
  }
  return all;
}

}  // namespace

TEST_CASE("a global batch gives the same step however it is split into micro-batches") {
  const auto tokens = random_ids(4 * 16, 0), targets = random_ids(4 * 16, 1000);
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

TEST_CASE("steps repeat bit for bit, and training lowers the loss") {
  std::vector<std::vector<float>> results;
  double first_loss = 0, last_loss = 0;
  for (int run = 0; run < 2; ++run) {
    Engine engine(small(4));
    engine.initialise(3);
    const auto tokens = random_ids(64, 0), targets = random_ids(64, 1000);
    for (int step = 1; step <= 30; ++step) {
      engine.begin_step(step);
      engine.micro_step(tokens, targets, 1.0f / 64);
      last_loss = engine.loss_sum() / 64;
      if (step == 1) first_loss = last_loss;
      engine.update(step, 1e-2);
    }
    results.push_back(weights_of(engine));
  }
  CHECK(std::memcmp(results[0].data(), results[1].data(), results[0].size() * sizeof(float)) == 0);
  CHECK(first_loss == Approx(std::log(61.0)).margin(1.0));
  CHECK(last_loss < 0.5 * first_loss);
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
  const auto tokens = random_ids(32, 0), targets = random_ids(32, 1000);
  Parameter& victim = *engine.model().parameters()[4];
  victim.weight.as<float>()[7] = std::numeric_limits<float>::quiet_NaN();
  const auto before = weights_of(engine);
  engine.begin_step(9);
  engine.micro_step(tokens, targets, 1.0f / 32);
  CHECK_THROWS_WITH(engine.update(9, 1e-3), contains("step 9") && contains("weight " + victim.name));
  const auto after = weights_of(engine);
  CHECK(std::memcmp(before.data(), after.data(), before.size() * sizeof(float)) == 0);
}
