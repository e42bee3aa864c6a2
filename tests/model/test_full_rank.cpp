// Sketches of full rank lose nothing: the whole backward pass, with low-rank gradients, shared codes of x̂, row
// constants from outputs and attention without its output, must then equal the exact one. And with lossy codes, what
// must stay exact.
#include <cmath>

#include "catch.h"
#include "llmz/ops/projector.h"
#include "model/harness.h"

using namespace llmz;
using test::ModelHarness;

namespace {

constexpr nn::Precision kDouble = {DType::f64, DType::f64};

codec::CodecConfig full_rank(const std::string& kind) {
  codec::CodecConfig c{.codec = "sketch"};
  c.projector.kind = subspace::projector_kinds().value(kind, "kind");
  c.projector.rank = kind == "prac" ? 0.5f : 1.0f;
  c.projector.random_rank = 0.5f;
  c.projector.random = Projector::Random::sign;
  c.projector.refresh = 1;
  return c;
}

nn::ActivationsConfig sketch_everything(const std::string& kind, const std::string& norm) {
  nn::ActivationsConfig a;
  a.qkv_input = a.gate_up_input = a.qkv = a.attention_output = a.gate_up = a.down_input = full_rank(kind);
  if (norm == "sketch") {
    a.norm = full_rank(kind);
  } else {
    a.norm.codec = norm;
  }
  return a;
}

/// The gradient of a parameter as a matrix of doubles, expanded where it is low-rank.
std::vector<double> gradient_of(const Parameter& p) {
  const Tensor w = p.weight;
  std::vector<double> g(static_cast<size_t>(w.numel()));
  if (!p.grad.low.present()) {
    std::copy_n(p.grad.dense.as<double>(), w.numel(), g.begin());
    return g;
  }
  Memory recorder;
  Exec dry(recorder);
  const auto expand = [&](Exec& exec, Tensor out) {
    const ProgramScope program(exec.memory, "expand");
    ops::expand_gradient(exec, out, p.grad.low, 0);
  };
  expand(dry, Tensor(nullptr, DType::f64, w.shape, recorder.device()));
  Memory memory(recorder.finish());
  Exec exec(memory);
  expand(exec, Tensor(g.data(), DType::f64, w.shape));
  return g;
}

}  // namespace

TEST_CASE("sketches of full rank give the exact gradients, shared or apart") {
  for (auto config : {test::tiny_llama(), test::tiny_gpt2()}) {
    ModelHarness exact(config, {.precision = kDouble, .loss_chunk = 5}, 2, 7);
    const double loss = exact.train();
    for (const char* kind : {"sign", "haar"}) {
      for (const char* norm : {"shared", "store", "sketch"}) {
        INFO(config.architecture << ", " << kind << ", norm " << norm);
        ModelHarness other(config,
                           {.activations = sketch_everything(kind, norm), .precision = kDouble, .loss_chunk = 5}, 2, 7);
        other.refresh();
        CHECK(other.train() == Approx(loss).epsilon(1e-13));
        const auto& mine = exact.model().parameters();
        const auto& theirs = other.model().parameters();
        for (size_t i = 0; i < mine.size(); ++i) {
          INFO(mine[i]->name);
          const auto want = gradient_of(*mine[i]), got = gradient_of(*theirs[i]);
          double largest = 0, worst = 0;
          for (size_t j = 0; j < want.size(); ++j) {
            largest = std::max(largest, std::abs(want[j]));
            worst = std::max(worst, std::abs(want[j] - got[j]));
          }
          CHECK(worst < 1e-11 * largest);  // a few hundred roundings of fp64 per product, some ten products deep
        }
      }
    }
  }
}

TEST_CASE(
    "with lossy inputs of linear layers and exact non-linear ones, gradients of all but their weights stay exact") {
  // What no weight gradient passes on: norms, biases, embedding, head.
  for (auto config : {test::tiny_llama(), test::tiny_gpt2()}) {
    nn::ActivationsConfig lossy;
    lossy.norm.codec = "store";
    lossy.qkv_input = lossy.gate_up_input = lossy.attention_output = lossy.down_input = full_rank("sign");
    for (auto* c : {&lossy.qkv_input, &lossy.gate_up_input, &lossy.attention_output, &lossy.down_input}) {
      c->projector.rank = 0.25f;
    }
    ModelHarness exact(config, {.precision = kDouble, .loss_chunk = 5}, 2, 7);
    ModelHarness other(config, {.activations = lossy, .precision = kDouble, .loss_chunk = 5}, 2, 7);
    exact.train();
    other.train();
    const auto& mine = exact.model().parameters();
    const auto& theirs = other.model().parameters();
    for (size_t i = 0; i < mine.size(); ++i) {
      INFO(config.architecture << ": " << mine[i]->name);
      const auto want = gradient_of(*mine[i]), got = gradient_of(*theirs[i]);
      double largest = 0, worst = 0;
      for (size_t j = 0; j < want.size(); ++j) {
        largest = std::max(largest, std::abs(want[j]));
        worst = std::max(worst, std::abs(want[j] - got[j]));
      }
      CHECK((worst < 1e-11 * largest) == !theirs[i]->grad.low.present());
    }
  }
}
