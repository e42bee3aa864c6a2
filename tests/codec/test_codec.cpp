// The contract that every codec of the registry keeps.
#include <cstring>
#include <vector>

#include "catch.h"
#include "llmz/codec/codec.h"
#include "llmz/core/random.h"
#include "llmz/ops/elementwise.h"
#include "ops/fixture.h"

using namespace llmz;

namespace {

constexpr int64_t kTokens = 37, kWidth = 19, kOutputs = 11;

std::vector<float> random_values(int64_t count, uint32_t layer) {
  std::vector<float> values(static_cast<size_t>(count));
  RandomStream(1, Purpose::test, layer).fill_normal(values.data(), 0, static_cast<uint64_t>(count), 1.0f);
  return values;
}

Tensor view(std::vector<float>& values, Shape shape) { return Tensor(values.data(), DType::f32, shape); }

}  // namespace

TEST_CASE("keep, decode, weight_grad, drop") {
  std::vector<float> x = random_values(kTokens * kWidth, 0), dy = random_values(kTokens * kOutputs, 1);
  std::vector<double> expected(kOutputs * kWidth, 0.5);  // gradients accumulate: there is something before
  for (int64_t t = 0; t < kTokens; ++t) {
    for (int64_t i = 0; i < kOutputs; ++i) {
      for (int64_t j = 0; j < kWidth; ++j) {
        expected[i * kWidth + j] += static_cast<double>(dy[t * kOutputs + i]) * static_cast<double>(x[t * kWidth + j]);
      }
    }
  }
  for (const std::string& name : codec::codec_names()) {
    INFO(name);
    std::vector<float> decoded(x.size()), gradient(expected.size());
    test::run_op([&](Exec& exec) {
      const auto codec = codec::make_codec({.codec = name});
      std::fill(gradient.begin(), gradient.end(), 0.5f);
      Buffer input = exec.memory.take("x", codec->input_category(), {kTokens, kWidth}, DType::f32);
      ops::copy(exec, input.tensor(), exec.dry() ? input.tensor() : view(x, {kTokens, kWidth}));
      codec->keep(exec, std::move(input), [&](Exec& e, Tensor into) {
        ops::copy(e, into, e.dry() ? into : view(x, {kTokens, kWidth}));
      });
      // Whatever comes between forward and backward may use the memory that the codec does not hold.
      {
        const Buffer other = exec.memory.take("other", Category::activations, {kTokens, 3 * kWidth}, DType::f32);
        ops::fill(exec, other.tensor(), -7.0f);
      }
      {
        const Buffer again = codec->decode(exec);
        if (!exec.dry()) std::memcpy(decoded.data(), again.tensor().data, again.tensor().bytes());
      }
      WeightGrad grad{exec.dry() ? Tensor(nullptr, DType::f32, {kOutputs, kWidth}, exec.memory.device())
                                 : view(gradient, {kOutputs, kWidth})};
      const Tensor dy_view = exec.dry() ? Tensor(nullptr, DType::f32, {kTokens, kOutputs}, exec.memory.device())
                                        : view(dy, {kTokens, kOutputs});
      codec->weight_grad(exec, dy_view, grad);
      codec->drop();  // a buffer still held now would fail the end of the program
    });
    CHECK(std::memcmp(decoded.data(), x.data(), x.size() * sizeof(float)) == 0);  // both codecs are exact
    for (size_t i = 0; i < expected.size(); ++i) {
      CHECK(gradient[i] == Approx(expected[i]).margin(kTokens * 4 * 6e-8));  // fp32 sums of 37 products below 4
    }
  }
}

TEST_CASE("an unknown codec is refused with the known ones") {
  CHECK_THROWS_WITH(codec::make_codec({.codec = "stroe"}), contains("'stroe'") && contains("store, recompute"));
}
