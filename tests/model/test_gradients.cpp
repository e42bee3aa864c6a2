#include <cmath>

#include "catch.h"
#include "model/gradient_check.h"

using namespace llmz;
using test::check_gradients;
using test::ModelHarness;

namespace {

constexpr nn::Precision kDouble = {DType::f64, DType::f64};

model::BuildOptions in_double(nn::ActivationsConfig activations) {
  return {.activations = activations, .precision = kDouble, .loss_chunk = 5, .gradients = true};
}

}  // namespace

TEST_CASE("whole-model gradients equal central differences in double") {
  const nn::ActivationsConfig store;
  nn::ActivationsConfig rebuild;
  rebuild.gate_up.codec = rebuild.down_input.codec = "recompute";
  nn::ActivationsConfig apart;
  apart.norm.codec = "store";
  apart.qkv_input.codec = "recompute";
  nn::ActivationsConfig checkpoint;
  checkpoint.block = nn::BlockCodec::recompute;

  SECTION("llama with grouped queries, store") {
    ModelHarness h(test::tiny_llama(), in_double(store), 2, 7);
    check_gradients(h, 8);
  }
  SECTION("llama, gate, up and products rebuilt") {
    ModelHarness h(test::tiny_llama(), in_double(rebuild), 3, 5);
    check_gradients(h, 4);
  }
  SECTION("llama, norms and linear layers with codes of their own") {
    ModelHarness h(test::tiny_llama(), in_double(apart), 3, 5);
    check_gradients(h, 4);
  }
  SECTION("gpt2, GELU's input and products rebuilt") {
    ModelHarness h(test::tiny_gpt2(), in_double(rebuild), 3, 5);
    check_gradients(h, 4);
  }
  SECTION("llama, blocks rebuilt") {
    ModelHarness h(test::tiny_llama(), in_double(checkpoint), 1, 9);
    check_gradients(h, 4);
  }
  SECTION("gpt2, store") {
    ModelHarness h(test::tiny_gpt2(), in_double(store), 2, 7);
    check_gradients(h, 8);
  }
  SECTION("gpt2, blocks rebuilt") {
    ModelHarness h(test::tiny_gpt2(), in_double(checkpoint), 2, 4);
    check_gradients(h, 4);
  }
}

TEST_CASE("a target of -1 contributes neither loss nor gradient") {
  ModelHarness h(test::tiny_llama(), in_double({}), 2, 6);
  for (int i = 0; i < 12; ++i) {
    if (i % 3 == 0) h.targets()[i] = -1;
  }
  check_gradients(h, 2);
  for (int i = 0; i < 12; ++i) h.targets()[i] = -1;
  CHECK(h.train() == 0.0);
  for (const Parameter* p : h.model().parameters()) {
    const double* g = p->grad.dense.as<double>();
    for (int64_t i = 0; i < p->grad.dense.numel(); ++i) REQUIRE(g[i] == 0.0);
  }
}
