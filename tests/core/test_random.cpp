#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "catch.h"
#include "llmz/core/random.h"

using llmz::philox4x32;
using llmz::Purpose;
using llmz::RandomStream;

namespace {

constexpr uint64_t kDraws = 1 << 20;
/// Deviations are measured in standard errors. Streams are fixed, so this never flickers; a right generator passes 5
/// standard errors except once in 1.7 million tests.
constexpr double kSigmas = 5;

double correlation(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += double(a[i]) * b[i];
  return sum / static_cast<double>(a.size());
}

std::vector<float> normals(const RandomStream& stream, uint64_t first, uint64_t count) {
  std::vector<float> x(count);
  stream.fill_normal(x.data(), first, count, 1.0f);
  return x;
}

}  // namespace

TEST_CASE("philox4x32-10 gives the published answers", "[random]") {
  using Block = std::array<uint32_t, 4>;
  // Random123, tests/kat_vectors.
  CHECK(philox4x32({0, 0, 0, 0}, {0, 0}) == Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}) == Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
  // C++26 [rand.predef]: the 10000th number of a default-constructed std::philox4x32 (seed 20111115).
  CHECK(philox4x32({9999 / 4, 0, 0, 0}, {20111115, 0})[9999 % 4] == 1955073260u);
}

TEST_CASE("a stream is the generator keyed by seed, purpose and layer", "[random]") {
  const uint64_t seed = 0x0123456789abcdefull;
  const RandomStream stream(seed, Purpose::projector, 7);
  const uint64_t index = 0x500000003ull;
  CHECK(stream.block(index) == philox4x32({3, 5, 7, uint32_t(Purpose::projector)}, {0x89abcdef, 0x01234567}));
  for (uint64_t k = 0; k < 4; ++k) CHECK(stream.bits(4 * index + k) == stream.block(index)[k]);
}

TEST_CASE("normal draws have the moments of N(0, 1)", "[random]") {
  const RandomStream stream(42, Purpose::test);
  double m1 = 0, m2 = 0, m3 = 0, m4 = 0;
  float largest = 0;
  for (const float x : normals(stream, 0, kDraws)) {
    const double y = x;
    m1 += y, m2 += y * y, m3 += y * y * y, m4 += y * y * y * y;
    largest = std::max(largest, std::abs(x));
  }
  const double n = double(kDraws), error = kSigmas / std::sqrt(n);
  CHECK(std::abs(m1 / n) < error);
  CHECK(std::abs(m2 / n - 1) < error * std::sqrt(2.0));   // Var x² = 2
  CHECK(std::abs(m3 / n) < error * std::sqrt(15.0));      // Var x³ = 15
  CHECK(std::abs(m4 / n - 3) < error * std::sqrt(96.0));  // Var x⁴ = 96
  CHECK(largest > 4.0f);                                  // of 2^20 draws 66 are expected beyond 4
  CHECK(largest < 6.7f);                                  // sqrt(-2 ln 2^-33) bounds Box-Muller on 32 bits
}

TEST_CASE("normal draws fall into equal bins equally often", "[random]") {
  // Chi-square on 64 bins of Φ(x).
  std::vector<double> bins(64);
  for (const float x : normals(RandomStream(3, Purpose::test), 0, kDraws)) {
    const double p = 0.5 * std::erfc(-double(x) / std::sqrt(2.0));
    bins[std::min<size_t>(63, size_t(p * 64))] += 1;
  }
  double chi2 = 0;
  for (const double count : bins) chi2 += (count - kDraws / 64.0) * (count - kDraws / 64.0) / (kDraws / 64.0);
  CHECK(std::abs(chi2 - 63) < kSigmas * std::sqrt(2.0 * 63));
}

TEST_CASE("uniform, sign and below have their distributions", "[random]") {
  const RandomStream stream(5, Purpose::test, 1);
  double sum = 0, square = 0, signs = 0;
  bool inside = true;
  for (uint64_t i = 0; i < kDraws; ++i) {
    const double u = stream.uniform(i);
    inside = inside && u > 0 && u <= 1;
    sum += u, square += u * u;
    const float s = stream.sign(i);
    inside = inside && (s == 1.0f || s == -1.0f);
    signs += s;
  }
  const double n = double(kDraws), error = kSigmas / std::sqrt(n);
  CHECK(inside);
  CHECK(std::abs(sum / n - 0.5) < error * std::sqrt(1.0 / 12));
  CHECK(std::abs(square / n - 1.0 / 3) < error * std::sqrt(4.0 / 45));
  CHECK(std::abs(signs / n) < error);

  std::vector<double> counts(7);
  for (uint64_t i = 0; i < 70000; ++i) counts.at(stream.below(i, 7)) += 1;
  double chi2 = 0;
  for (const double c : counts) chi2 += (c - 10000) * (c - 10000) / 10000;
  CHECK(chi2 < 6 + kSigmas * std::sqrt(2.0 * 6));
}

TEST_CASE("below is the high word of a 128-bit product", "[random]") {
  __extension__ using Wide = unsigned __int128;
  const RandomStream stream(6, Purpose::test);
  int wrong = 0;
  for (uint64_t i = 0; i < 20000; ++i) {
    const auto b = stream.block(i);
    const uint64_t x = (uint64_t(b[0]) << 32) | b[1];
    const uint64_t n = i % 3 == 0 ? std::numeric_limits<uint64_t>::max() - i : (uint64_t(b[2]) << (i % 32)) + 1;
    wrong += stream.below(i, n) != uint64_t((Wide(x) * n) >> 64);
  }
  CHECK(wrong == 0);
  CHECK(stream.below(0, 1) == 0);
}

TEST_CASE("streams and elements are independent", "[random]") {
  const auto base = normals(RandomStream(1, Purpose::test, 0), 0, kDraws);
  const double error = kSigmas / std::sqrt(double(kDraws));
  CHECK(std::abs(correlation(base, normals(RandomStream(2, Purpose::test, 0), 0, kDraws))) < error);
  CHECK(std::abs(correlation(base, normals(RandomStream(1, Purpose::test, 1), 0, kDraws))) < error);
  CHECK(std::abs(correlation(base, normals(RandomStream(1, Purpose::projector, 0), 0, kDraws))) < error);
  CHECK(std::abs(correlation(base, normals(RandomStream(uint64_t{1} << 32, Purpose::test, 0), 0, kDraws))) < error);
  for (const uint64_t lag : {1, 2, 3, 4, 1024}) {
    CHECK(std::abs(correlation(base, normals(RandomStream(1, Purpose::test, 0), lag, kDraws))) < error);
  }
}

TEST_CASE("a sequence is the same however it is split", "[random]") {
  const RandomStream stream(9, Purpose::weights, 3);
  const uint64_t first = (uint64_t{1} << 34) - 500;  // crosses a 32-bit border of the block counter
  const uint64_t count = 1000;
  std::vector<float> whole(count);
  stream.fill_normal(whole.data(), first, count, 0.02f);

  int wrong = 0;
  for (uint64_t i = 0; i < count; ++i) wrong += whole[i] != 0.02f * stream.normal(first + i);
  CHECK(wrong == 0);

  for (uint64_t piece = 1; piece <= 37; ++piece) {
    std::vector<float> split(count);
    for (uint64_t at = 0; at < count; at += piece) {
      stream.fill_normal(split.data() + at, first + at, std::min(piece, count - at), 0.02f);
    }
    wrong += split != whole;
  }
  CHECK(wrong == 0);
}
