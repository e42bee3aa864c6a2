#pragma once

// Elementary functions for inner loops (isa.h): branch-free, so that the compiler vectorises a loop that calls them.
// Sums vectorise under `#pragma omp simd reduction(+ : s)`, in an order that depends on the length alone, never on an
// address.

#include <bit>
#include <cmath>
#include <cstdint>

#include "kernels/cpu/isa.h"
#include "llmz/core/dtype.h"

namespace llmz::cpu {

/// The type in which elements stored as T are computed with.
template <class T>
struct compute_of {
  using type = float;
};
template <>
struct compute_of<double> {
  using type = double;
};
template <class T>
using compute_t = typename compute_of<T>::type;

LLMZ_INLINE float load(const float* p) { return *p; }
LLMZ_INLINE double load(const double* p) { return *p; }
LLMZ_INLINE float load(const bf16* p) { return std::bit_cast<float>(static_cast<uint32_t>(p->bits) << 16); }

LLMZ_INLINE void store(float* p, float x) { *p = x; }
LLMZ_INLINE void store(double* p, double x) { *p = x; }
/// As bf16's constructor, without a branch.
LLMZ_INLINE void store(bf16* p, float x) {
  const uint32_t u = std::bit_cast<uint32_t>(x);
  const uint32_t rounded = u + 0x7fffu + ((u >> 16) & 1u), nan = u | 0x400000u;
  p->bits = static_cast<uint16_t>((x == x ? rounded : nan) >> 16);
}

/// e^x to about 1 ulp, with the limits of std::exp: +inf above 88.73, denormals and 0 below −87.3, NaN stays NaN.
/// x = n·ln2 + r, |r| ≤ ln2/2; e^r by a minimax polynomial; 2^n in two factors so that neither end leaves the range.
LLMZ_INLINE float exp(float x) {
  x = x < -104.0f ? -104.0f : x;
  x = x > 89.0f ? 89.0f : x;
  const float magic = 12582912.0f;  // 1.5·2^23: adding it rounds to an integer, kept in the low bits
  const float shifted = x * 1.44269504f + magic;
  const float n = shifted - magic;
  const int32_t exponent = std::bit_cast<int32_t>(shifted) - std::bit_cast<int32_t>(magic);
  const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  float q = 1.381459879e-03f;
  q = q * r + 8.368716575e-03f;
  q = q * r + 4.166838899e-02f;
  q = q * r + 1.666652113e-01f;
  q = q * r + 4.999999404e-01f;
  const float p = 1.0f + (r + r * r * q);
  const int32_t half = exponent >> 1;
  const float scale0 = std::bit_cast<float>((half + 127) << 23);
  const float scale1 = std::bit_cast<float>((exponent - half + 127) << 23);
  return p * scale0 * scale1;
}
LLMZ_INLINE double exp(double x) { return std::exp(x); }

/// tanh to about 2 ulp: x + x³·P(x²) below 0.625, 1 − 2/(e^{2|x|} + 1) with the sign of x above.
LLMZ_INLINE float tanh(float x) {
  const float a = std::bit_cast<float>(std::bit_cast<uint32_t>(x) & 0x7fffffffu);
  const float z = x * x;
  float q = -5.717045162e-03f;
  q = q * z + 2.065058798e-02f;
  q = q * z + -5.374349654e-02f;
  q = q * z + 1.333149076e-01f;
  q = q * z + -3.333328366e-01f;
  const float small = x + x * z * q;
  const float large = 1.0f - 2.0f / (exp(2.0f * a) + 1.0f);
  const float signed_large =
      std::bit_cast<float>(std::bit_cast<uint32_t>(large) | (std::bit_cast<uint32_t>(x) & 0x80000000u));
  return a < 0.625f ? small : signed_large;
}
LLMZ_INLINE double tanh(double x) { return std::tanh(x); }

/// ln x for normal x > 0, to about 1 ulp: x = m·2^e with m in [√½, √2), ln m by a polynomial in m − 1.
LLMZ_INLINE float log(float x) {
  const uint32_t u = std::bit_cast<uint32_t>(x);
  const uint32_t shifted = u - 0x3f3504f3u;  // the bits of √½
  const float e = static_cast<float>(static_cast<int32_t>(shifted) >> 23);
  const float f = std::bit_cast<float>((shifted & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
  float q = 7.0376836292e-2f;
  q = q * f + -1.1514610310e-1f;
  q = q * f + 1.1676998740e-1f;
  q = q * f + -1.2420140846e-1f;
  q = q * f + 1.4249322787e-1f;
  q = q * f + -1.6668057665e-1f;
  q = q * f + 2.0000714765e-1f;
  q = q * f + -2.4999993993e-1f;
  q = q * f + 3.3333331174e-1f;
  const float z = f * f;
  const float tail = f * z * q + e * -2.12194440e-4f - 0.5f * z;
  return (f + tail) + e * 0.693359375f;
}

struct SineCosine {
  float sine, cosine;
};

/// sin and cos of 2π·t for t in [0, 1], to about 1e-7: the nearest quarter turn is taken out, the rest goes through
/// polynomials on ±π/4.
LLMZ_INLINE SineCosine sine_cosine_of_turns(float t) {
  const float magic = 12582912.0f;  // 1.5·2^23: adding it rounds to an integer, kept in the low bits
  const float shifted = 4.0f * t + magic;
  const uint32_t quarter = std::bit_cast<uint32_t>(shifted);
  const float a = (4.0f * t - (shifted - magic)) * 1.57079632679f;
  const float z = a * a;
  const float s = a + a * z * (-1.6666654611e-1f + z * (8.3321608736e-3f + z * -1.9515295891e-4f));
  const float c =
      1.0f - 0.5f * z + z * z * (4.166664568298827e-2f + z * (-1.388731625493765e-3f + z * 2.443315711809948e-5f));
  const bool swap = (quarter & 1u) != 0;
  const uint32_t sine_sign = (quarter & 2u) << 30, cosine_sign = ((quarter + 1u) & 2u) << 30;
  const float sine = swap ? c : s, cosine = swap ? s : c;
  return {std::bit_cast<float>(std::bit_cast<uint32_t>(sine) ^ sine_sign),
          std::bit_cast<float>(std::bit_cast<uint32_t>(cosine) ^ cosine_sign)};
}

/// 1/(1 + e^−x).
LLMZ_INLINE float sigmoid(float x) { return 1.0f / (1.0f + exp(-x)); }
LLMZ_INLINE double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

}  // namespace llmz::cpu
