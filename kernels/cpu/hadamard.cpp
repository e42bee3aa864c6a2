#include "kernels/cpu/hadamard.h"

#include <cmath>
#include <utility>

#include "kernels/cpu/vec_math.h"

namespace llmz::cpu {
namespace {

// A factor of H is butterflies between neighbours, sums into the lower half of `out`, differences into the upper. It
// moves every index bit one place, so log2(size) of them are H in its natural order, and each is one vector loop.

template <class Real>
LLMZ_INLINE void one_factor(Real* __restrict out, const Real* __restrict in, int64_t size) {
  const int64_t half = size / 2;
  for (int64_t i = 0; i < half; ++i) {
    const Real a = in[2 * i], b = in[2 * i + 1];
    out[i] = a + b;
    out[i + half] = a - b;
  }
}

/// Two of them in one pass over the numbers.
template <class Real>
LLMZ_INLINE void two_factors(Real* __restrict out, const Real* __restrict in, int64_t size) {
  const int64_t quarter = size / 4;
  for (int64_t i = 0; i < quarter; ++i) {
    const Real a = in[4 * i], b = in[4 * i + 1], c = in[4 * i + 2], d = in[4 * i + 3];
    out[i] = (a + b) + (c + d);
    out[i + quarter] = (a - b) + (c - d);
    out[i + 2 * quarter] = (a + b) - (c + d);
    out[i + 3 * quarter] = (a - b) - (c - d);
  }
}

template <class Real>
LLMZ_INLINE void transform(Real* x, Real* scratch, int64_t size) {
  Real *from = x, *to = scratch;
  int64_t left = size;
  for (; left >= 4; left /= 4) {
    two_factors(to, from, size);
    std::swap(from, to);
  }
  if (left == 2) {
    one_factor(to, from, size);
    std::swap(from, to);
  }
  const Real scale = Real(1) / std::sqrt(static_cast<Real>(size));
  LLMZ_IVDEP
  for (int64_t i = 0; i < size; ++i) x[i] = from[i] * scale;
}

template <class Real>
LLMZ_INLINE void transform_blocks(Real* x, Real* scratch, int64_t count, int64_t block) {
  for (int64_t begin = 0; begin < count; begin += block) {
    while (block > count - begin) block /= 2;
    transform(x + begin, scratch, block);
  }
}

template <class Real>
LLMZ_INLINE void apply_signs(Real* __restrict x, const float* __restrict signs, int64_t count) {
  for (int64_t i = 0; i < count; ++i) x[i] *= static_cast<Real>(signs[i]);
}

template <class Real>
LLMZ_INLINE void rotate_loop(Real* x, Real* scratch, const float* signs, int64_t count, int64_t block) {
  apply_signs(x, signs, count);
  transform_blocks(x, scratch, count, block);
}

template <class Real>
LLMZ_INLINE void unrotate_loop(Real* x, Real* scratch, const float* signs, int64_t count, int64_t block) {
  transform_blocks(x, scratch, count, block);
  apply_signs(x, signs, count);
}

}  // namespace

void hadamard_rotate(float* x, float* scratch, const float* signs, int64_t count, int64_t block) {
  simd<rotate_loop<float>, float>(x, scratch, signs, count, block);
}
void hadamard_rotate(double* x, double* scratch, const float* signs, int64_t count, int64_t block) {
  simd<rotate_loop<double>, double>(x, scratch, signs, count, block);
}

void hadamard_unrotate(float* x, float* scratch, const float* signs, int64_t count, int64_t block) {
  simd<unrotate_loop<float>, float>(x, scratch, signs, count, block);
}
void hadamard_unrotate(double* x, double* scratch, const float* signs, int64_t count, int64_t block) {
  simd<unrotate_loop<double>, double>(x, scratch, signs, count, block);
}

}  // namespace llmz::cpu
