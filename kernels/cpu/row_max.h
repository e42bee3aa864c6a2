#pragma once

#include <bit>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "kernels/cpu/vec_math.h"

namespace llmz::cpu {

/// max |x|, NaN above infinity above all numbers: as whole numbers, the magnitudes' bits are in that order.
template <class Real>
LLMZ_INLINE Real largest_magnitude(const Real* x, int64_t n) {
  using Bits = std::conditional_t<sizeof(Real) == 4, int32_t, int64_t>;
  Bits largest = 0;
#pragma omp simd reduction(max : largest)
  for (int64_t i = 0; i < n; ++i) {
    const Bits magnitude = std::bit_cast<Bits>(x[i]) & std::numeric_limits<Bits>::max();
    largest = largest > magnitude ? largest : magnitude;
  }
  return std::bit_cast<Real>(largest);
}

}  // namespace llmz::cpu
