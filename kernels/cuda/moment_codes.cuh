#pragma once

// The eight-bit moments of kernels/cpu/moment_codes.h, one at a time.

#include "kernels/cuda/device.cuh"

namespace llmz::cuda {

/// What a code stands for, before its block's scale. 2|q| + 1 = 2^(i+1)·(1 + (j + ½)/2^i): as a float, its exponent
/// holds the level and its mantissa the fraction.
__device__ inline float decode_moment(uint32_t code) {
  const int q = static_cast<int>(code) - 128;
  const uint32_t bits = __float_as_uint(static_cast<float>(2 * (q < 0 ? -q : q) + 1));
  const int level = static_cast<int>(bits >> 23) - 128;
  const float mantissa = __uint_as_float((bits & 0x007fffffu) | 0x3f800000u);
  const float power =
      ((level & 1) != 0 ? 10.0f : 1.0f) * ((level & 2) != 0 ? 100.0f : 1.0f) * ((level & 4) != 0 ? 10000.0f : 1.0f);
  const float magnitude = (1e-6f * power) * fmaf(0.9f, mantissa, -0.8f);
  return q > 0 ? magnitude : q < 0 ? -magnitude : 0.0f;
}

/// The nearest code of y, |y| ≤ 1. Level i holds from half-way between its smallest value and the last of level i − 1
/// on; inside a level the values are the middles of 2^i equal cells. NaN becomes 0.
__device__ inline uint32_t encode_moment(float y) {
  const float a = fabsf(y);
  float power = 0, slope = 0;  // 2^i and 2^i·10^(6−i)/0.9
  const auto level = [&](float from, float p, float s) {
    power = a >= from ? p : power;
    slope = a >= from ? s : slope;
  };
  level(2.75e-7f, 1, 1e6f / 0.9f);
  level(1.9e-6f, 2, 2e5f / 0.9f);
  level(1.45e-5f, 4, 4e4f / 0.9f);
  level(1.225e-4f, 8, 8e3f / 0.9f);
  level(1.1125e-3f, 16, 1.6e3f / 0.9f);
  level(1.05625e-2f, 32, 3.2e2f / 0.9f);
  level(1.028125e-1f, 64, 64.0f / 0.9f);
  const float last = 2 * power - 0.5f;
  float q = fmaf(a, slope, power * (8.0f / 9.0f));
  q = q < last ? q : last;
  const int magnitude = static_cast<int>(q);
  return static_cast<uint32_t>(128 + (y < 0 ? -magnitude : magnitude));
}

/// A block's scale is its largest magnitude, handed in as bits: as whole numbers they are in order, NaN above infinity
/// above all numbers. The reciprocal of a smaller one than this is no number; such a block becomes 0.
__device__ inline float inverse_moment_scale(float scale) { return scale >= 1.2e-38f ? 1.0f / scale : 0.0f; }

}  // namespace llmz::cuda
