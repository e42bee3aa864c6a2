#pragma once

// cuRAND's Philox, from the algorithm as llmz's core has it. See ../README.md.

#include "cuda_runtime.h"
#include "llmz/core/random.h"

inline uint4 curand_Philox4x32_10(uint4 c, uint2 k) {
  const auto r = llmz::philox4x32({c.x, c.y, c.z, c.w}, {k.x, k.y});
  return {r[0], r[1], r[2], r[3]};
}
