#include <cmath>
#include <limits>

#include "fixture.h"
#include "llmz/ops/loss.h"
#include "reference.h"

using namespace llmz;
using namespace llmz::test;

namespace {

struct Reference {
  std::vector<double> losses, gradient;
};

Reference cross_entropy(const HostTensor& logits, const HostTensor& targets, double grad_scale) {
  const int64_t rows = logits.shape()[0], columns = logits.shape()[1];
  Reference r{std::vector<double>(static_cast<size_t>(rows)), std::vector<double>(static_cast<size_t>(rows * columns))};
  for (int64_t t = 0; t < rows; ++t) {
    const auto target = static_cast<int64_t>(targets.get(t));
    if (target < 0) continue;
    double largest = -std::numeric_limits<double>::infinity(), sum = 0;
    for (int64_t j = 0; j < columns; ++j) largest = std::max(largest, logits.get(t * columns + j));
    for (int64_t j = 0; j < columns; ++j) sum += std::exp(logits.get(t * columns + j) - largest);
    r.losses[static_cast<size_t>(t)] = std::log(sum) + largest - logits.get(t * columns + target);
    for (int64_t j = 0; j < columns; ++j) {
      const double p = std::exp(logits.get(t * columns + j) - largest) / sum;
      r.gradient[static_cast<size_t>(t * columns + j)] = grad_scale * (p - (j == target ? 1 : 0));
    }
  }
  return r;
}

HostTensor some_targets(int64_t rows, int64_t columns) {
  HostTensor targets(DType::i32, {rows});
  for (int64_t t = 0; t < rows; ++t) targets.set(t, t % 5 == 3 ? -1 : static_cast<double>((t * 7919 + 1) % columns));
  return targets;
}

}  // namespace

TEST_CASE("softmax_cross_entropy and its gradient equal the formula") {
  for (DType type : {DType::f32, DType::bf16, DType::f64}) {
    for (const Shape& shape : {Shape{1, 1}, Shape{3, 17}, Shape{65, 129}, Shape{9, 5003}}) {
      for (double spread : {1.0, 30.0}) {
        for (bool write : {false, true}) {
          INFO(dtype_name(type) << " " << shape.str() << " spread " << spread << " gradient " << write);
          const DType statistic = type == DType::f64 ? DType::f64 : DType::f32;
          HostTensor logits = HostTensor::random(type, shape, 9, spread, 3);
          HostTensor targets = some_targets(shape[0], shape[1]), losses(statistic, {shape[0]});
          const Reference want = cross_entropy(logits, targets, 0.25);
          const HostTensor before = logits;
          run_op([&](Exec& exec) {
            ops::softmax_cross_entropy(exec, losses.tensor(), logits.tensor(), targets.tensor(), write, 0.25f);
          });
          // The sum's terms are off by an ulp of exp and half an ulp of (x − max), of which |x − max| < 9·spread; a
          // chunk of 1024 terms rounds at most 1024/4 times in a row (the narrowest vectors have 4 lanes).
          const double eps = rounding(statistic);
          const double relative = (9 * spread + 260) * eps;
          require_close(losses, want.losses, relative, eps);
          if (write) {
            require_close(logits, want.gradient, relative * 0.25, rounding(type));
            CHECK(logits.gaps_intact());
          } else {
            CHECK(logits.same_bits(before));
          }
        }
      }
    }
  }
}

TEST_CASE("softmax_cross_entropy takes infinite logits and shows NaN") {
  const double inf = std::numeric_limits<double>::infinity();
  HostTensor logits(DType::f32, {2, 20}), targets(DType::i32, {2}), losses(DType::f32, {2});
  for (int64_t j = 1; j < 20; ++j) logits.set(j, -inf);  // all the probability on column 0
  logits.set(25, std::numeric_limits<double>::quiet_NaN());
  const auto run = [&] {
    run_op([&](Exec& exec) {
      ops::softmax_cross_entropy(exec, losses.tensor(), logits.tensor(), targets.tensor(), true, 1.0f);
    });
  };
  run();
  CHECK(losses.get(0) == 0);
  CHECK(std::isnan(losses.get(1)));
  for (int64_t j = 0; j < 20; ++j) CHECK(logits.get(j) == 0);
}

TEST_CASE("softmax_cross_entropy gives the same bits wherever a row lies") {
  HostTensor logits = HostTensor::random(DType::f32, {8, 1037}, 3, 4.0), targets(DType::i32, {8}),
             losses(DType::f32, {8});
  for (int64_t i = 0; i < logits.size(); ++i) logits.set(i, logits.get(i % 1037));  // rows alike, addresses not
  for (int64_t t = 0; t < 8; ++t) targets.set(t, 77);
  run_op([&](Exec& exec) {
    ops::softmax_cross_entropy(exec, losses.tensor(), logits.tensor(), targets.tensor(), true, 1.0f);
  });
  for (int64_t t = 1; t < 8; ++t) CHECK(losses.get(t) == losses.get(0));
  for (int64_t i = 0; i < logits.size(); ++i) REQUIRE(logits.get(i) == logits.get(i % 1037));
}

TEST_CASE("softmax_cross_entropy names what is wrong") {
  HostTensor logits(DType::f32, {2, 3}), targets(DType::i32, {2}), losses(DType::f32, {2}), half(DType::bf16, {2});
  const auto run = [&](HostTensor& l) {
    run_op([&](Exec& exec) {
      ops::softmax_cross_entropy(exec, l.tensor(), logits.tensor(), targets.tensor(), true, 1.0f);
    });
  };
  CHECK_THROWS_WITH(run(half), "softmax_cross_entropy: losses [2] holds bf16; f32 is needed");
  CHECK_THROWS_WITH(run(logits), "softmax_cross_entropy: losses has shape [2, 3], [2] is needed");
  for (double bad : {3.0, -2.0}) {
    targets.set(1, bad);
    CHECK_THROWS_AS(run(losses), Error);
  }
}
