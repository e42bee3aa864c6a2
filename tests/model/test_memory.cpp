#include <algorithm>
#include <cmath>
#include <cstring>

#include "catch.h"
#include "model/harness.h"

using namespace llmz;
using test::ModelHarness;

namespace {

std::vector<float> gradients_of(ModelHarness& h) {
  std::vector<float> all;
  for (const Parameter* p : h.model().parameters()) {
    const float* g = p->grad.dense.as<float>();
    all.insert(all.end(), g, g + p->grad.dense.numel());
  }
  return all;
}

size_t codes(const MemoryPlan& plan) { return plan.totals().by_category[static_cast<int>(Category::codes)]; }

}  // namespace

TEST_CASE("what is stored or rebuilt changes memory and not one bit of loss or gradient") {
  using A = nn::ActivationsConfig;
  struct Case {
    const char* name;
    void (*set)(A&);
    bool fewer;  ///< codes than with everything stored
  };
  const Case cases[] = {{"product rebuilt", [](A& a) { a.down_input.codec = "recompute"; }, true},
                        {"gate and up rebuilt", [](A& a) { a.gate_up.codec = "recompute"; }, true},
                        {"both", [](A& a) { a.down_input.codec = a.gate_up.codec = "recompute"; }, true},
                        {"norms apart, outputs rebuilt",
                         [](A& a) {
                           a.norm.codec = "store";
                           a.qkv_input.codec = a.gate_up_input.codec = a.down_input.codec = "recompute";
                         },
                         true},
                        {"norms apart", [](A& a) { a.norm.codec = "store"; }, false},
                        {"blocks rebuilt", [](A& a) { a.block = nn::BlockCodec::recompute; }, true}};
  for (auto config : {test::tiny_llama(), test::tiny_gpt2()}) {
    ModelHarness base(config, {}, 3, 16);
    const double loss = base.train();
    const std::vector<float> gradients = gradients_of(base);
    for (const Case& c : cases) {
      INFO(config.architecture << ": " << c.name);
      A activations;
      c.set(activations);
      ModelHarness other(config, {.activations = activations}, 3, 16);
      CHECK(other.train() == loss);
      const std::vector<float> same = gradients_of(other);
      REQUIRE(same.size() == gradients.size());
      CHECK(std::memcmp(same.data(), gradients.data(), same.size() * sizeof(float)) == 0);
      CHECK((codes(other.memory().plan()) < codes(base.memory().plan())) == c.fewer);
    }
  }
}

TEST_CASE("planning is running: the plan of a model is what it allocates, and any size plans at once") {
  ModelHarness h(test::tiny_llama(), {}, 2, 8);
  const MemoryPlan& plan = h.memory().plan();
  const MemoryPlan::Totals totals = plan.totals();
  size_t sum = totals.packing;
  for (size_t bytes : totals.by_category) sum += bytes;
  CHECK(sum == plan.arena_bytes);
  for (const PlannedProgram& program : plan.programs) {
    for (const PlannedBuffer& a : program.spans) {
      CHECK(a.offset + a.bytes <= plan.arena_bytes);
      for (const PlannedBuffer& b : program.spans) {
        const bool same_time = &a != &b && a.begin < b.end && b.begin < a.end;
        if (same_time) CHECK((a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset));
      }
    }
  }

  model::ModelConfig large{.vocab_size = 32000, .hidden = 8192, .intermediate = 22016, .layers = 80, .heads = 64};
  large.context = 2048;
  Memory recorder;
  Exec exec(recorder);
  {
    const auto model = model::make_model(large, {}, recorder);
    CHECK(model->parameter_count() > 64'000'000'000);
    const Tensor tokens = recorder.persistent("tokens", Category::activations, {1, 2048}, DType::i32);
    const Tensor losses = recorder.persistent("losses", Category::activations, {2048}, DType::f32);
    const ProgramScope program(recorder, "train");
    model->forward_backward(exec, losses, {tokens, tokens}, 1.0f);
  }
  const MemoryPlan plan65 = recorder.finish();
  CHECK(plan65.arena_bytes > size_t{8} * 64'000'000'000);  // fp32 weights and gradients
}

TEST_CASE("gradients accumulate over micro-batches") {
  ModelHarness h(test::tiny_llama(), {}, 2, 8);
  h.train();
  const std::vector<float> once = gradients_of(h);
  h.accumulate();
  const std::vector<float> twice = gradients_of(h);
  float largest = 0;
  for (float g : once) largest = std::max(largest, std::abs(g));
  // The second pass adds in another order than doubling does: a few roundings of the largest summand.
  for (size_t i = 0; i < once.size(); ++i) REQUIRE(twice[i] == Approx(2 * once[i]).margin(16 * 6e-8 * largest));
}
