#include "kernels/cpu/vec_math.h"

#include <cmath>
#include <limits>
#include <vector>

#include "catch.h"

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

LLMZ_INLINE void exp_row(float* y, const float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = llmz::cpu::exp(x[i]);
}
LLMZ_INLINE void tanh_row(float* y, const float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = llmz::cpu::tanh(x[i]);
}
LLMZ_INLINE void sigmoid_row(float* y, const float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = llmz::cpu::sigmoid(x[i]);
}
LLMZ_INLINE void bf16_row(llmz::bf16* y, const float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) llmz::cpu::store(y + i, x[i]);
}

/// Floats of every sign and exponent (a prime step through their bit patterns) and a fine grid where it matters.
std::vector<float> arguments() {
  std::vector<float> x;
  for (uint64_t bits = 0; bits < (uint64_t{1} << 32); bits += 99991) {
    x.push_back(std::bit_cast<float>(static_cast<uint32_t>(bits)));
  }
  for (int i = 0; i < 400000; ++i) x.push_back(-110.0f + static_cast<float>(i) * 5e-4f);
  return x;
}

/// The largest error in units of the last place of the exact result; NaN must be answered with NaN.
template <auto kRow, class Exact>
double worst_ulp(Exact exact, float least = -kInfinity) {
  const std::vector<float> x = arguments();
  std::vector<float> y(x.size());
  llmz::cpu::simd<kRow>(y.data(), x.data(), static_cast<int64_t>(x.size()));
  double worst = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    if (x[i] < least) continue;
    const double want = exact(static_cast<double>(x[i]));
    const float nearest = static_cast<float>(want);
    if (std::isnan(want) || std::isinf(nearest)) {
      REQUIRE((std::isnan(want) ? std::isnan(y[i]) : y[i] == nearest));
      continue;
    }
    const float size = std::fabs(nearest);
    const double ulp = static_cast<double>(std::nextafter(size, kInfinity)) - static_cast<double>(size);
    worst = std::max(worst, std::fabs(static_cast<double>(y[i]) - want) / ulp);
  }
  return worst;
}

}  // namespace

TEST_CASE("vectorised exp is within 1.5 ulp everywhere, denormals included") {
  CHECK(worst_ulp<exp_row>([](double x) { return std::exp(x); }) < 1.5);
}

TEST_CASE("vectorised tanh is within 2.5 ulp everywhere") {
  CHECK(worst_ulp<tanh_row>([](double x) { return std::tanh(x); }) < 2.5);
}

TEST_CASE("vectorised sigmoid is within 3 ulp where e^-x is finite, and below 4e-39 before") {
  CHECK(worst_ulp<sigmoid_row>([](double x) { return 1 / (1 + std::exp(-x)); }, -88.7f) < 3);
  const float x[] = {-88.71f, -88.8f, -1000.0f, -kInfinity};
  float y[4];
  llmz::cpu::simd<sigmoid_row>(y, x, 4);
  for (float value : y) CHECK((value >= 0 && value < 4e-39f));
}

TEST_CASE("vectorised functions keep their limits") {
  const float x[] = {-kInfinity, kInfinity, 0.0f, -0.0f, 1e4f, -1e4f};
  float e[6], t[6];
  llmz::cpu::simd<exp_row>(e, x, 6);
  llmz::cpu::simd<tanh_row>(t, x, 6);
  CHECK(std::vector<float>(e, e + 6) == std::vector<float>{0, kInfinity, 1, 1, kInfinity, 0});
  CHECK(std::vector<float>(t, t + 6) == std::vector<float>{-1, 1, 0, 0, 1, -1});
}

TEST_CASE("the branch-free rounding to bf16 is the constructor's") {
  const std::vector<float> x = arguments();
  std::vector<llmz::bf16> y(x.size());
  llmz::cpu::simd<bf16_row>(y.data(), x.data(), static_cast<int64_t>(x.size()));
  for (size_t i = 0; i < x.size(); ++i) {
    const bool same = y[i].bits == llmz::bf16(x[i]).bits;
    if (!same) FAIL("bits of " << x[i]);
  }
}
