#pragma once

#include <cstdint>

namespace llmz::cpu {

// Eight-bit moments (Dettmers et al. 2022): the signed dynamic tree in closed form. A byte is q + 128 with q = −127 …
// 127; 0 stands for 0, and |q| = 2^i + j (i = 0 … 6, 0 ≤ j < 2^i) for 10^(i−6)·(0.1 + 0.9·(j + ½)/2^i); times the sign,
// times the scale, which is the largest magnitude of a block of ops::kMomentBlock elements.

/// m[n] from codes and scales; n from the start of a block on.
void decode_moments(float* m, const uint8_t* codes, const float* scales, int64_t n);
void decode_moments(double* m, const uint8_t* codes, const float* scales, int64_t n);

/// Nearest codes, and scales, of m[n]. A block with NaN or infinity gets that for its scale.
void encode_moments(uint8_t* codes, float* scales, const float* m, int64_t n);
void encode_moments(uint8_t* codes, float* scales, const double* m, int64_t n);

}  // namespace llmz::cpu
