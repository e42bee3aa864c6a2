#include <array>
#include <cmath>

#include "kernels/cpu/rows.h"
#include "kernels/cpu/twins.h"

namespace llmz::cpu {
namespace {

constexpr int64_t kStrip = 256;  // pairs of a head whose cosines and sines are held at a time

/// Turns the pairs (a[i], b[i]) by the angles of which cosine and sine are given.
template <class T, class Real>
LLMZ_INLINE void turn_loop(T* a, T* b, const Real* cosine, const Real* sine, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const Real x = load(a + i), y = load(b + i);
    store(a + i, x * cosine[i] - y * sine[i]);
    store(b + i, y * cosine[i] + x * sine[i]);
  }
}

template <class T>
void rotary_as(const Tensor& x, int64_t position_offset, float base, bool inverse) {
  using Real = compute_t<T>;
  const int64_t half = x.dim(3) / 2;
  for (int64_t first = 0; first < half; first += kStrip) {
    const int64_t count = std::min(kStrip, half - first);
    std::array<double, kStrip> frequency;
    for (int64_t i = 0; i < count; ++i) {
      frequency[static_cast<size_t>(i)] =
          std::pow(static_cast<double>(base), -static_cast<double>(first + i) / static_cast<double>(half));
    }
#pragma omp parallel for schedule(static) if (x.numel() > kParallelElements)
    for (int64_t s = 0; s < x.dim(1); ++s) {
      std::array<Real, kStrip> cosine, sine;
      for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
        const double angle = static_cast<double>(position_offset + s) * frequency[i];
        cosine[i] = static_cast<Real>(std::cos(angle));
        sine[i] = static_cast<Real>(inverse ? -std::sin(angle) : std::sin(angle));
      }
      for (int64_t b = 0; b < x.dim(0); ++b) {
        for (int64_t h = 0; h < x.dim(2); ++h) {
          T* head = x.as<T>() + b * x.stride(0) + s * x.stride(1) + h * x.stride(2) + first;
          simd<turn_loop<T, Real>>(head, head + half, cosine.data(), sine.data(), count);
        }
      }
    }
  }
}

}  // namespace

void rotary(Tensor x, int64_t position_offset, float base, bool inverse) {
  switch (x.dtype) {
    case DType::f64: return rotary_as<double>(x, position_offset, base, inverse);
    case DType::bf16: return rotary_as<bf16>(x, position_offset, base, inverse);
    default: return rotary_as<float>(x, position_offset, base, inverse);
  }
}

}  // namespace llmz::cpu
