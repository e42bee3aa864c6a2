#include "kernels/cpu/moment_codes.h"

#include <algorithm>
#include <cstdlib>

#include "kernels/cpu/row_max.h"
#include "kernels/cpu/vec_math.h"
#include "llmz/ops/optimizer.h"

namespace llmz::cpu {
namespace {

using ops::kMomentBlock;

/// 2|q| + 1 = 2^(i+1)·(1 + (j + ½)/2^i): as a float, its exponent holds the level and its mantissa, 1 … 2, the
/// fraction. Arithmetic throughout: a chain of comparisons becomes branches, which do not vectorise.
LLMZ_INLINE float decode(uint8_t code) {
  const int32_t q = static_cast<int32_t>(code) - 128;
  const int32_t a = std::abs(q);
  const uint32_t bits = std::bit_cast<uint32_t>(static_cast<float>(2 * a + 1));
  const int32_t level = static_cast<int32_t>(bits >> 23) - 128;
  const float mantissa = std::bit_cast<float>((bits & 0x007fffffu) | 0x3f800000u);
  const float power = static_cast<float>((1 + 9 * (level & 1)) * (1 + 99 * (level >> 1 & 1))) *
                      static_cast<float>(1 + 9999 * (level >> 2 & 1));  // 10^level
  const float sign = static_cast<float>(std::min(std::max(q, -1), 1));
  return sign * (1e-6f * power) * (0.9f * mantissa - 0.8f);
}

LLMZ_INLINE void next_level(bool reached, float p, float s, float& power, float& slope) {
  power = reached ? p : power;
  slope = reached ? s : slope;
}

/// The nearest code of y, |y| ≤ 1. Level i is right from T_(i−1) to T_i, where T_i = 10^(i−6)·(1 + 0.9/2^i) lies
/// half-way between its last value and the first of the next level (below half the smallest value: 0). Inside a level
/// the values are the middles of 2^i equal cells, so |q| = ⌊2^i + (|y|·10^(6−i) − 0.1)/0.9·2^i⌋, at most 2^(i+1) − 1.
/// NaN becomes 0.
LLMZ_INLINE uint8_t encode(float y) {
  const float a = y < 0 ? -y : y;
  float power = 0, slope = 0;  // 2^i and 2^i·10^(6−i)/0.9
  next_level(a >= 2.75e-7f, 1, 1e6f / 0.9f, power, slope);
  next_level(a >= 1.9e-6f, 2, 2e5f / 0.9f, power, slope);
  next_level(a >= 1.45e-5f, 4, 4e4f / 0.9f, power, slope);
  next_level(a >= 1.225e-4f, 8, 8e3f / 0.9f, power, slope);
  next_level(a >= 1.1125e-3f, 16, 1.6e3f / 0.9f, power, slope);
  next_level(a >= 1.05625e-2f, 32, 3.2e2f / 0.9f, power, slope);
  next_level(a >= 1.028125e-1f, 64, 64.0f / 0.9f, power, slope);
  const float last = 2 * power - 0.5f;
  float q = a * slope + power * (8.0f / 9.0f);
  q = q < last ? q : last;
  const int32_t magnitude = static_cast<int32_t>(q);
  return static_cast<uint8_t>(128 + (y < 0 ? -magnitude : magnitude));
}

template <class Real>
LLMZ_INLINE void decode_loop(Real* __restrict m, const uint8_t* __restrict codes, const float* scales, int64_t n) {
  for (int64_t begin = 0; begin < n; begin += kMomentBlock) {
    const int64_t end = std::min(begin + kMomentBlock, n);
    const Real scale = scales[begin / kMomentBlock];
    for (int64_t i = begin; i < end; ++i) m[i] = static_cast<Real>(decode(codes[i])) * scale;
  }
}

template <class Real>
LLMZ_INLINE void encode_loop(uint8_t* __restrict codes, float* scales, const Real* __restrict m, int64_t n) {
  constexpr float kSmallest = 1.2e-38f;  // the reciprocal of less is no number; such a block becomes 0
  for (int64_t begin = 0; begin < n; begin += kMomentBlock) {
    const int64_t end = std::min(begin + kMomentBlock, n);
    const auto scale = static_cast<float>(largest_magnitude(m + begin, end - begin));
    scales[begin / kMomentBlock] = scale;
    const Real inverse = scale >= kSmallest ? 1 / static_cast<Real>(scale) : 0;
    for (int64_t i = begin; i < end; ++i) codes[i] = encode(static_cast<float>(m[i] * inverse));
  }
}

}  // namespace

void decode_moments(float* m, const uint8_t* codes, const float* scales, int64_t n) {
  simd<decode_loop<float>, float>(m, codes, scales, n);
}
void decode_moments(double* m, const uint8_t* codes, const float* scales, int64_t n) {
  simd<decode_loop<double>, double>(m, codes, scales, n);
}

void encode_moments(uint8_t* codes, float* scales, const float* m, int64_t n) {
  simd<encode_loop<float>, float>(codes, scales, m, n);
}
void encode_moments(uint8_t* codes, float* scales, const double* m, int64_t n) {
  simd<encode_loop<double>, double>(codes, scales, m, n);
}

}  // namespace llmz::cpu
