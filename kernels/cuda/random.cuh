#pragma once

// The numbers of core/random.h on the device: cuRAND's own Philox function, keyed and counted as RandomStream does.

#include <curand_philox4x32_x.h>

#include "llmz/core/random.h"

namespace llmz::cuda {

/// A RandomStream, small enough to be a kernel's argument.
struct DeviceStream {
  uint32_t key[2], stream[2];

  __device__ uint4 block(uint64_t index) const {
    return curand_Philox4x32_10(
        make_uint4(static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), stream[0], stream[1]),
        make_uint2(key[0], key[1]));
  }
  __device__ uint32_t bits(uint64_t i) const {
    const uint4 b = block(i / 4);
    switch (i % 4) {
      case 0: return b.x;
      case 1: return b.y;
      case 2: return b.z;
      default: return b.w;
    }
  }
  __device__ float sign(uint64_t i) const { return (bits(i) >> 31) != 0 ? -1.0f : 1.0f; }
};

inline DeviceStream device_stream(const RandomStream& s) {
  return {{s.key()[0], s.key()[1]}, {s.stream()[0], s.stream()[1]}};
}

/// N(0, 1) twice by Box and Muller's method, the sine first; as RandomStream::normal to a few units of rounding.
__device__ inline float2 normal_pair(uint32_t x, uint32_t y) {
  constexpr float kTwoToMinus32 = 2.3283064365386963e-10f;
  const float u = static_cast<float>(x) * kTwoToMinus32 + kTwoToMinus32 * 0.5f;
  const float turn = static_cast<float>(y) * kTwoToMinus32 + kTwoToMinus32 * 0.5f;
  const float radius = sqrtf(-2.0f * logf(u));
  float sine, cosine;
  sincospif(2.0f * turn, &sine, &cosine);
  return make_float2(radius * sine, radius * cosine);
}

}  // namespace llmz::cuda
