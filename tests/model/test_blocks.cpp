// What blocks can do beside what LLaMA and GPT-2 ask of them, each as a toy architecture.
#include <cmath>
#include <cstring>

#include "catch.h"
#include "model/gradient_check.h"
#include "model/toy.h"

using namespace llmz;
using test::check_gradients;
using test::ModelHarness;
using test::Toy;

namespace {

constexpr nn::Precision kDouble = {DType::f64, DType::f64};
constexpr int64_t kBatch = 3, kLength = 7;

const Toy kToys[] = {
    {.name = "heads wider than hidden / heads", .head_dim = 6},
    {.name = "norms of query and key", .qk_norm = true},
    {.name = "norms of query and key, wide heads, no rotation", .head_dim = 5, .rotary = false, .qk_norm = true},
    {.name = "biases of query, key and value", .qkv_bias = true, .tied = true},
    {.name = "biases behind attention and in the MLP", .out_bias = true, .mlp_bias = true},
    {.name = "a window", .window = 3},
    {.name = "norms after, RMSNorm", .place = nn::NormPlace::after},
    {.name = "an encoder",
     .causal = false,
     .rotary = false,
     .place = nn::NormPlace::after,
     .norm = nn::NormKind::layer,
     .mlp = nn::MlpKind::gelu_tanh,
     .qkv_bias = true,
     .out_bias = true,
     .mlp_bias = true,
     .tied = true},
    {.name = "an encoder with a window, norms before", .causal = false, .window = 2, .norm = nn::NormKind::layer},
};

model::ModelConfig toy_config() {
  return {.vocab_size = 17,
          .hidden = 8,
          .intermediate = 10,
          .layers = 2,
          .heads = 4,
          .kv_heads = 2,
          .context = 8,
          .norm_eps = 1e-3f,
          .init_std = 0.3f};
}

/// The last sequence has padding, which has no targets.
ModelHarness make(const Toy& toy, model::BuildOptions options) {
  ModelHarness h(toy_config(), std::move(options), kBatch, kLength,
                 [&toy](const model::ModelConfig& c, const model::BuildOptions& o, Memory& memory) {
                   return model::assemble(c, o, memory, test::ToyArchitecture(c, toy).recipe());
                 });
  const int64_t last = kBatch - 1;
  h.lengths()[last] = 4;
  for (int64_t i = 4; i < kLength; ++i) h.targets()[last * kLength + i] = -1;
  return h;
}

std::vector<float> gradients_of(ModelHarness& h) {
  std::vector<float> all;
  for (const Parameter* p : h.model().parameters()) {
    const float* g = p->grad.dense.as<float>();
    all.insert(all.end(), g, g + p->grad.dense.numel());
  }
  return all;
}

nn::ActivationsConfig apart() {
  nn::ActivationsConfig a;
  a.norm.codec = "store";
  a.qkv_input.codec = a.gate_up_input.codec = a.gate_up.codec = a.down_input.codec = "recompute";
  return a;
}

nn::ActivationsConfig blocks_rebuilt() {
  nn::ActivationsConfig a;
  a.block = nn::BlockCodec::recompute;
  return a;
}

/// Sketches that lose nothing.
nn::ActivationsConfig full_rank_sketches() {
  codec::CodecConfig c{.codec = "sketch"};
  c.projector.kind = subspace::ProjectorKind::sign;
  c.projector.rank = 1.0f;
  c.projector.refresh = 1;
  nn::ActivationsConfig a;
  a.qkv_input = a.gate_up_input = a.qkv = a.attention_output = a.gate_up = a.down_input = c;
  return a;
}

}  // namespace

TEST_CASE("whole-model gradients of every kind of block equal central differences in double") {
  for (const Toy& toy : kToys) {
    for (const auto& activations : {nn::ActivationsConfig(), apart(), blocks_rebuilt()}) {
      INFO(toy.name << ", norm " << activations.norm.codec << ", block " << nn::block_codecs().name(activations.block));
      ModelHarness h = make(toy, {.activations = activations, .precision = kDouble, .loss_chunk = 5});
      check_gradients(h, 3);
    }
  }
}

TEST_CASE("what is stored or rebuilt changes no bit, whatever the block") {
  for (const Toy& toy : kToys) {
    INFO(toy.name);
    ModelHarness base = make(toy, {});
    const double loss = base.train();
    const std::vector<float> gradients = gradients_of(base);
    for (const auto& activations : {apart(), blocks_rebuilt()}) {
      ModelHarness other = make(toy, {.activations = activations});
      CHECK(other.train() == loss);
      const std::vector<float> same = gradients_of(other);
      REQUIRE(same.size() == gradients.size());
      CHECK(std::memcmp(same.data(), gradients.data(), same.size() * sizeof(float)) == 0);
    }
  }
}

TEST_CASE("sketches of full rank give the exact gradients of vectors, whatever the block") {
  for (const Toy& toy : kToys) {
    if (toy.norm == nn::NormKind::layer && !toy.qkv_bias) continue;  // low-rank behind LayerNorm needs the biases
    INFO(toy.name);
    ModelHarness exact = make(toy, {.precision = kDouble});
    ModelHarness other = make(toy, {.activations = full_rank_sketches(), .precision = kDouble});
    const double loss = exact.train();
    other.refresh();
    CHECK(other.train() == Approx(loss).epsilon(1e-13));
    for (size_t i = 0; i < exact.model().parameters().size(); ++i) {
      const Parameter &mine = *exact.model().parameters()[i], &theirs = *other.model().parameters()[i];
      if (theirs.grad.low.present()) continue;
      INFO(mine.name);
      const double *want = mine.grad.dense.as<double>(), *got = theirs.grad.dense.as<double>();
      double largest = 0, worst = 0;
      for (int64_t j = 0; j < mine.weight.numel(); ++j) {
        largest = std::max(largest, std::abs(want[j]));
        worst = std::max(worst, std::abs(want[j] - got[j]));
      }
      CHECK(worst < 1e-11 * largest);  // a few hundred roundings of fp64 per product, some ten products deep
    }
  }
}

TEST_CASE("tokens see what the mask says, and padding is seen by none") {
  for (const Toy& toy : kToys) {
    INFO(toy.name);
    ModelHarness h = make(toy, {.precision = kDouble});
    const auto losses_after = [&](int64_t at, int32_t token) {
      const int32_t saved = std::exchange(h.tokens()[at], token);
      const Tensor all = h.outputs().first;
      const double* z = all.as<double>();
      h.tokens()[at] = saved;
      return std::vector<double>(z, z + all.numel());
    };
    const int64_t position = 2, vocab = toy_config().vocab_size, layers = toy_config().layers;
    const auto changed = [&](int64_t sequence, int64_t token, int64_t seen_from) {
      const int64_t at = sequence * kLength + token;
      const auto before = losses_after(at, 1), after = losses_after(at, 2);
      const int64_t row = (sequence * kLength + seen_from) * vocab;
      return std::memcmp(before.data() + row, after.data() + row, static_cast<size_t>(vocab) * sizeof(double)) != 0;
    };
    for (int64_t from = 0; from < kLength; ++from) {
      const int64_t distance = from - position;
      const int64_t reach = toy.window > 0 ? layers * (toy.window - 1) : kLength;  // each layer looks once further
      CHECK(changed(0, position, from) == (std::abs(distance) <= reach && (distance >= 0 || !toy.causal)));
    }
    for (int64_t from = 0; from < 4; ++from) CHECK_FALSE(changed(kBatch - 1, 5, from));  // of the padding
  }
}

TEST_CASE("logits of the last token are those of all tokens' last rows") {
  ModelHarness h = make(kToys[0], {.precision = kDouble});
  const auto [all, last] = h.outputs();
  const int64_t vocab = all.dim(1);
  for (int64_t b = 0; b < kBatch; ++b) {
    for (int64_t i = 0; i < vocab; ++i) {
      CHECK(last.as<double>()[b * vocab + i] ==
            Approx(all.as<double>()[((b + 1) * kLength - 1) * vocab + i]).epsilon(1e-12));
    }
  }
}
