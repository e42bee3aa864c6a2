#pragma once

// What the instructions behind kernels/cuda/mma.cuh do, from the registers of a warp's lanes. Layouts: PTX ISA,
// "Matrix Fragments for mma.m16n8k16 with floating point type" and "ldmatrix".

#include "cuda_runtime.h"

namespace cuda_emulation {

inline float bf16_half(uint32_t pair, int half) {
  return std::bit_cast<float>(half == 0 ? pair << 16 : pair & 0xffff0000u);
}

/// mma.sync.m16n8k16, bf16 with f32 sums.
inline void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  struct Registers {
    uint32_t a[4], b[2];
  };
  const Registers mine{{a[0], a[1], a[2], a[3]}, {b0, b1}};
  const unsigned char* const words = exchange(0xffffffffu, &mine, sizeof(mine));
  const auto of_lane = [&](int l) {
    Registers r;
    std::memcpy(&r, words + 64 * l, sizeof(r));
    return r;
  };
  const int g = lane() / 4, t = lane() % 4;
  for (int quad = 0; quad < 4; ++quad) {  // k 2·quad, 2·quad + 1 and these + 8
    const Registers row = of_lane(4 * g + quad), left = of_lane(4 * (2 * t) + quad),
                    right = of_lane(4 * (2 * t + 1) + quad);
    for (int eight = 0; eight < 2; ++eight) {
      for (int half = 0; half < 2; ++half) {
        const float upper = bf16_half(row.a[2 * eight], half), lower = bf16_half(row.a[2 * eight + 1], half);
        const float b_left = bf16_half(left.b[eight], half), b_right = bf16_half(right.b[eight], half);
        c[0] += upper * b_left, c[1] += upper * b_right;
        c[2] += lower * b_left, c[3] += lower * b_right;
      }
    }
  }
}

/// ldmatrix.m8n8.x4.b16, and .trans of it.
inline void load_matrices(uint32_t (&x)[4], const uint16_t* row, bool transposed) {
  const unsigned char* const words = exchange(0xffffffffu, &row, sizeof(row));
  const auto of_lane = [&](int l) {
    const uint16_t* r = nullptr;
    std::memcpy(&r, words + 64 * l, sizeof(r));
    return r;
  };
  const int g = lane() / 4, t = lane() % 4;
  for (int i = 0; i < 4; ++i) {
    const uint16_t first = transposed ? of_lane(8 * i + 2 * t)[g] : of_lane(8 * i + g)[2 * t];
    const uint16_t second = transposed ? of_lane(8 * i + 2 * t + 1)[g] : of_lane(8 * i + g)[2 * t + 1];
    x[i] = first | static_cast<uint32_t>(second) << 16;
  }
}

}  // namespace cuda_emulation
