#include <cmath>

#include "fixture.h"
#include "llmz/ops/attention.h"
#include "reference.h"

using namespace llmz;
using namespace llmz::test;

namespace {

std::vector<double> turned(const HostTensor& x, int64_t offset, double base, bool inverse) {
  const Shape& s = x.shape();
  const int64_t half = s[3] / 2;
  std::vector<double> y = x.values();
  for (int64_t row = 0; row < s[0] * s[1] * s[2]; ++row) {
    const int64_t position = offset + row / s[2] % s[1];
    for (int64_t i = 0; i < half; ++i) {
      const double angle =
          static_cast<double>(position) * std::pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(s[3]));
      const double c = std::cos(angle), sine = inverse ? -std::sin(angle) : std::sin(angle);
      const double a = x.get(row * s[3] + i), b = x.get(row * s[3] + half + i);
      y[static_cast<size_t>(row * s[3] + i)] = a * c - b * sine;
      y[static_cast<size_t>(row * s[3] + half + i)] = b * c + a * sine;
    }
  }
  return y;
}

}  // namespace

TEST_CASE("rotary turns pairs (i, i + D/2) by position times frequency") {
  for (DType type : {DType::f32, DType::bf16, DType::f64}) {
    for (const Shape& shape :
         {Shape{1, 1, 1, 2}, Shape{2, 3, 3, 6}, Shape{1, 17, 2, 34}, Shape{2, 65, 3, 64}, Shape{1, 2, 1, 1026}}) {
      for (int64_t offset : {0, 1000}) {
        for (bool inverse : {false, true}) {
          INFO(dtype_name(type) << " " << shape.str() << " from " << offset << (inverse ? " back" : ""));
          HostTensor x = HostTensor::random(type, shape, 5, 1.0, 6);
          const std::vector<double> want = turned(x, offset, 10000.0, inverse);
          run_op([&](Exec& exec) { ops::rotary(exec, x.tensor(), offset, 10000.0f, inverse); });
          // Cosine, sine, two products and a sum: 4 roundings of numbers below 6; then the result's own. In f64 the
          // angle's rounding counts too: 1000 radians know 1000 roundings.
          const double arithmetic = type == DType::f64 ? 2000 * rounding(type) : 4 * rounding(DType::f32);
          require_close(x, want, 6 * arithmetic, rounding(type));
          CHECK(x.gaps_intact());
        }
      }
    }
  }
}

TEST_CASE("rotary works on some heads of a wider tensor and leaves the others alone") {
  HostTensor x = HostTensor::random(DType::f32, {2, 5, 4, 8}, 6);
  HostTensor part(DType::f32, {2, 5, 2, 8});
  std::vector<double> want = x.values();
  const auto index = [](int64_t row, int64_t head, int64_t i) { return (row * 4 + head + 1) * 8 + i; };
  const auto each = [&](auto&& f) {
    for (int64_t row = 0; row < 10; ++row)
      for (int64_t head = 0; head < 2; ++head)
        for (int64_t i = 0; i < 8; ++i) f((row * 2 + head) * 8 + i, index(row, head, i));
  };
  each([&](int64_t to, int64_t from) { part.set(to, x.get(from)); });
  const std::vector<double> middle = turned(part, 3, 500.0, false);
  each([&](int64_t from, int64_t to) { want[static_cast<size_t>(to)] = middle[static_cast<size_t>(from)]; });
  run_op([&](Exec& exec) { ops::rotary(exec, x.tensor().slice(2, 1, 2), 3, 500.0f, false); });
  require_close(x, want, 24 * rounding(DType::f32), rounding(DType::f32));
}

TEST_CASE("rotary there and back is the identity to rounding") {
  HostTensor x = HostTensor::random(DType::f32, {2, 33, 2, 16}, 7);
  const std::vector<double> before = x.values();
  run_op([&](Exec& exec) {
    ops::rotary(exec, x.tensor(), 11, 10000.0f, false);
    ops::rotary(exec, x.tensor(), 11, 10000.0f, true);
  });
  require_close(x, before, 8 * 6 * rounding(DType::f32), 0);  // two turns of 4 roundings of numbers below 6
}

TEST_CASE("rotary refuses odd heads and negative positions") {
  HostTensor odd(DType::f32, {1, 2, 1, 3}), even(DType::f32, {1, 2, 1, 4});
  Memory memory;
  Exec exec(memory);
  CHECK_THROWS_WITH(ops::rotary(exec, odd.tensor(), 0, 1e4f, false),
                    "rotary: x [1, 2, 1, 3] needs an even last dimension");
  CHECK_THROWS_WITH(ops::rotary(exec, even.tensor(), -1, 1e4f, false), "rotary: position_offset -1 is negative");
}
