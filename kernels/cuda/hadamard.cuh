#pragma once

// The rotation of kernels/cpu/hadamard.h inside one warp: no shared memory, no barrier.

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/random.cuh"

namespace llmz::cuda {

constexpr int kQuads = 8;                       // of a lane
constexpr int kWarpChunk = 4 * kWarp * kQuads;  // 1024 elements, the largest block of a rotation

/// Consecutive elements of a row: lane l holds 128·j + 4·l + k as v[j][k].
struct WarpChunk {
  float v[kQuads][4];
};
__device__ inline int quad_place(int j) { return 4 * kWarp * j + 4 * static_cast<int>(threadIdx.x % kWarp); }

/// A bit for each element of the lane, 4·j + k: whether its column's sign is −1.
__device__ inline uint32_t negative_columns(const DeviceStream& signs, int64_t first_column) {
  uint32_t mask = 0;
#pragma unroll 1
  for (int j = 0; j < kQuads; ++j) {
    const uint4 b = signs.block(static_cast<uint64_t>(first_column + quad_place(j)) / 4);
    mask |= (b.x >> 31 | b.y >> 31 << 1 | b.z >> 31 << 2 | b.w >> 31 << 3) << (4 * j);
  }
  return mask;
}

__device__ inline void flip_signs(WarpChunk& c, uint32_t negative) {
#pragma unroll
  for (int i = 0; i < 4 * kQuads; ++i) {
    float& x = c.v[i / 4][i % 4];
    x = __uint_as_float(__float_as_uint(x) ^ (negative >> i << 31));
  }
}

/// Butterflies between index bits from the lowest up: the CPU's additions in the CPU's order, so its bits too. Blocks
/// of at least 2h elements end where the last multiple of 2h ends: that is all there is to the smaller blocks at the
/// end.
template <bool kWhole>
__device__ void butterflies(WarpChunk& c, int count, int block) {
  const int lane = threadIdx.x % kWarp;
  const auto takes_part = [count](int i, int h) { return kWhole || (i | (2 * h - 1)) < count; };
  const auto pair = [](float& a, float& b, bool yes) {
    const float sum = a + b, difference = a - b;
    a = yes ? sum : a;
    b = yes ? difference : b;
  };
#pragma unroll
  for (int bit = 0; bit < 2; ++bit) {  // neighbours in one lane
    const int h = 1 << bit;
    if (h < block) {
#pragma unroll
      for (int i = 0; i < 4 * kQuads; ++i) {
        if ((i & h) == 0)
          pair(c.v[i / 4][i % 4], c.v[i / 4][(i % 4 + h) % 4], takes_part(quad_place(i / 4) + i % 4, h));
      }
    }
  }
#pragma unroll 1
  for (int step = 1; step < kWarp && 4 * step < block; step *= 2) {  // the same places of two lanes
    const float sign = (lane & step) != 0 ? -1.0f : 1.0f;
#pragma unroll
    for (int i = 0; i < 4 * kQuads; ++i) {
      float& x = c.v[i / 4][i % 4];
      const float other = __shfl_xor_sync(kAllLanes, x, step);
      x = takes_part(quad_place(i / 4), 4 * step) ? fmaf(sign, x, other) : x;  // ±x is exact: one rounding
    }
  }
#pragma unroll
  for (int bit = 0; bit < 3; ++bit) {  // two quads of one lane
    const int d = 1 << bit, h = 4 * kWarp * d;
    if (h < block) {
#pragma unroll
      for (int i = 0; i < 4 * kQuads; ++i) {
        const int j = i / 4;
        if ((j & d) == 0) pair(c.v[j][i % 4], c.v[(j + d) % kQuads][i % 4], takes_part(quad_place(j), h));
      }
    }
  }
}

/// H·c/√B in blocks of B = `block`; of the chunk's `count` elements what is left goes in smaller powers of two. All
/// lanes of the warp call.
__device__ inline void hadamard(WarpChunk& c, int count, int block) {
  if ((count & (block - 1)) == 0) {
    const float scale = 1.0f / sqrtf(static_cast<float>(block));
    if (count == kWarpChunk) {
      butterflies<true>(c, count, block);
    } else {
      butterflies<false>(c, count, block);
    }
#pragma unroll
    for (int i = 0; i < 4 * kQuads; ++i) c.v[i / 4][i % 4] *= scale;
    return;
  }
  butterflies<false>(c, count, block);
  int begin = 0;
#pragma unroll 1
  for (int size = block; size >= 1; size /= 2) {  // blocks of this size stand in begin … end − 1
    const int end = count & ~(size - 1);
    const float scale = 1.0f / sqrtf(static_cast<float>(size));
#pragma unroll
    for (int i = 0; i < 4 * kQuads; ++i) {
      const int place = quad_place(i / 4) + i % 4;
      float& x = c.v[i / 4][i % 4];
      x = place >= begin && place < end ? x * scale : x;
    }
    begin = end;
  }
}

}  // namespace llmz::cuda
