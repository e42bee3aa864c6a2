// What a code does on the average over its random numbers: no bias, and the variance that theory gives.
#include <cmath>
#include <vector>

#include "catch.h"
#include "codec/rig.h"

using namespace llmz;
using codec::CodecConfig;
using test::CodecRig;
using test::random_values;

namespace {

constexpr int64_t kTokens = 3, kWidth = 24;
constexpr int kDraws = 2000;

/// Over the draws: the mean of the decoded tensor and its squared error, with their standard errors.
struct Average {
  std::vector<double> mean, mean_error;  ///< by element
  double squared_error = 0, squared_error_error = 0;
};

Average average_over_draws(const CodecConfig& config, const std::vector<float>& x) {
  CodecRig rig(config, x, kTokens, random_values(kTokens * 2, 1));
  std::vector<double> sum(x.size()), squares(x.size());
  double errors = 0, errors_squared = 0;
  for (int draw = 0; draw < kDraws; ++draw) {
    const auto decoded = rig.run(static_cast<uint64_t>(100 + draw)).decoded;
    double error = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const double value = static_cast<double>(decoded[i]), off = value - static_cast<double>(x[i]);
      sum[i] += value;
      squares[i] += value * value;
      error += off * off;
    }
    errors += error;
    errors_squared += error * error;
  }
  Average a;
  const auto deviation = [](double total, double total_squares) {
    const double mean = total / kDraws;
    return std::sqrt(std::max(0.0, total_squares / kDraws - mean * mean) / kDraws);
  };
  for (size_t i = 0; i < x.size(); ++i) {
    a.mean.push_back(sum[i] / kDraws);
    a.mean_error.push_back(deviation(sum[i], squares[i]));
  }
  a.squared_error = errors / kDraws;
  a.squared_error_error = deviation(errors, errors_squared);
  return a;
}

double energy(const std::vector<float>& x) {
  double sum = 0;
  for (float v : x) sum += static_cast<double>(v) * static_cast<double>(v);
  return sum;
}

/// 72 elements: the largest of as many normal deviations exceeds 4.5 in one of 2000 runs; the draws are fixed.
void check_unbiased(const Average& a, const std::vector<float>& x, double margin = 1e-6) {
  for (size_t i = 0; i < x.size(); ++i) {
    INFO("element " << i << ": " << a.mean[i] << " for " << x[i] << ", standard error " << a.mean_error[i]);
    CHECK(std::abs(a.mean[i] - static_cast<double>(x[i])) < 4.5 * a.mean_error[i] + margin);
  }
}

CodecConfig sketch(const std::string& kind, float rank, float random_rank, const std::string& random = "haar") {
  CodecConfig c{.codec = "sketch"};
  c.projector.kind = subspace::projector_kinds().value(kind, "kind");
  c.projector.rank = rank;
  c.projector.random_rank = random_rank;
  c.projector.random = subspace::random_kinds().value(random, "random");
  c.projector.decomposition = subspace::Decomposition::exact;
  return c;
}

}  // namespace

TEST_CASE("sketches are unbiased and their error is the theory's") {
  const std::vector<float> x = random_values(kTokens * kWidth, 0);
  const double n = kWidth, r = 6;
  struct Theory {
    const char* kind;
    double relative_error;
  };
  // Gaussian: CompAct; Haar: n/r − 1 (PRAC, section 4); sign: the same where r divides n.
  for (const auto& [kind, relative] :
       {Theory{"gaussian", (n + 1) / r}, Theory{"sign", n / r - 1}, Theory{"haar", n / r - 1}}) {
    INFO(kind);
    const Average a = average_over_draws(sketch(kind, 0.25f, 0), x);
    check_unbiased(a, x);
    INFO(a.squared_error << " for " << relative * energy(x) << ", standard error " << a.squared_error_error);
    CHECK(std::abs(a.squared_error - relative * energy(x)) < 4 * a.squared_error_error);
  }
}

TEST_CASE("PRAC is unbiased and errs only on the tail of the spectrum") {
  // More tokens than the principal part has directions, or there would be no tail.
  const std::vector<float> x = random_values(kTokens * kWidth, 0);
  const double n = kWidth, r1 = 2, r2 = 6;
  CodecConfig principal = sketch("principal", 2.0f, 0);
  CodecRig rig(principal, x, kTokens, random_values(kTokens * 2, 1));
  const auto head = rig.run(1).decoded;
  std::vector<float> tail(x.size());
  for (size_t i = 0; i < x.size(); ++i) tail[i] = x[i] - head[i];
  REQUIRE(energy(tail) > 0.05 * energy(x));

  const Average haar = average_over_draws(sketch("prac", 2.0f, 6.0f), x);
  check_unbiased(haar, x);
  const double wanted = ((n - r1) / r2 - 1) * energy(tail);
  INFO(haar.squared_error << " for " << wanted << ", standard error " << haar.squared_error_error);
  CHECK(std::abs(haar.squared_error - wanted) < 4 * haar.squared_error_error);

  for (const char* random : {"sign", "gaussian"}) {
    INFO(random);
    const Average other = average_over_draws(sketch("prac", 2.0f, 6.0f, random), x);
    check_unbiased(other, x);
    CHECK(other.squared_error > 0.9 * wanted);  // Haar is the best of the unbiased ones on a flat tail
  }
}

// A value so near to a level that in 2000 draws it never left it shows no standard error; the other level, a step of at
// most 2·3/15 away, may have been missed with a probability of some 1/2000.
constexpr double kMissed = 4.5 * 0.4 / kDraws;

TEST_CASE("stochastic rounding is unbiased, with or without rotation") {
  const std::vector<float> x = random_values(kTokens * kWidth, 0);
  for (int64_t rotate : {0, 8}) {
    for (int64_t bits : {4, 8}) {
      INFO(bits << " bits, rotate " << rotate);
      CodecConfig c{.codec = "quant"};
      c.quant = {.bits = bits, .group = 8, .rotate = rotate, .rounding = codec::Rounding::stochastic};
      check_unbiased(average_over_draws(c, x), x, kMissed);
    }
  }
}

TEST_CASE("a packed sketch with stochastic rounding stays unbiased") {
  const std::vector<float> x = random_values(kTokens * kWidth, 0);
  CodecConfig c = sketch("sign", 0.25f, 0);
  c.quant = {.bits = 8, .rounding = codec::Rounding::stochastic};
  check_unbiased(average_over_draws(c, x), x);
}
