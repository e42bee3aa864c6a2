#pragma once

// Products of small dense fp32 matrices that live in the first- and second-level caches, for code that has its own
// tiling (attention). Everything is inlined into a caller compiled for one instruction set, which names its vector
// width W in floats; sizes are padded by the caller (rows to kRowBlock, columns to kColumnStep).

#include <cstdint>

#include "kernels/cpu/vec_math.h"

namespace llmz::cpu {

constexpr int64_t kRowBlock = 4;
constexpr int64_t kColumnStep = 16;

template <int W>
struct Vector {
  typedef float Type __attribute__((vector_size(W * sizeof(float)), aligned(sizeof(float)), may_alias));
};

/// c[4, NV·W] (+)= a[4, depth] · b[depth, NV·W]. Element (i, l) of a lies at a[i·a_row + l·a_step].
template <int W, int NV>
LLMZ_INLINE void micro_tile(float* c, int64_t c_pitch, const float* a, int64_t a_row, int64_t a_step, const float* b,
                            int64_t b_pitch, int64_t depth, bool accumulate) {
  using V = typename Vector<W>::Type;
  V sum[kRowBlock][NV];
#pragma GCC unroll 4
  for (int i = 0; i < kRowBlock; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) sum[i][j] = accumulate ? *reinterpret_cast<const V*>(c + i * c_pitch + j * W) : V{};
  }
  for (int64_t l = 0; l < depth; ++l) {
    V row[NV];
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) row[j] = *reinterpret_cast<const V*>(b + j * W);
#pragma GCC unroll 4
    for (int i = 0; i < kRowBlock; ++i) {
      const float factor = a[i * a_row];
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) sum[i][j] += factor * row[j];
    }
    a += a_step;
    b += b_pitch;
  }
#pragma GCC unroll 4
  for (int i = 0; i < kRowBlock; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) *reinterpret_cast<V*>(c + i * c_pitch + j * W) = sum[i][j];
  }
}

/// c[4, columns] (+)= a[4, depth] · b[depth, columns], columns a multiple of kColumnStep.
template <int W>
LLMZ_INLINE void row_block(float* c, int64_t c_pitch, const float* a, int64_t a_row, int64_t a_step, const float* b,
                           int64_t b_pitch, int64_t depth, int64_t columns, bool accumulate) {
  constexpr int kVectors = W >= 16 ? 4 : 2;  // as many sums as the registers hold
  int64_t j = 0;
  for (; j + kVectors * W <= columns; j += kVectors * W) {
    micro_tile<W, kVectors>(c + j, c_pitch, a, a_row, a_step, b + j, b_pitch, depth, accumulate);
  }
  if constexpr (W >= 16) {
    switch ((columns - j) / W) {
      case 3: return micro_tile<W, 3>(c + j, c_pitch, a, a_row, a_step, b + j, b_pitch, depth, accumulate);
      case 2: return micro_tile<W, 2>(c + j, c_pitch, a, a_row, a_step, b + j, b_pitch, depth, accumulate);
      case 1: return micro_tile<W, 1>(c + j, c_pitch, a, a_row, a_step, b + j, b_pitch, depth, accumulate);
      default: return;
    }
  }
}

}  // namespace llmz::cpu
