#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/rows.h"
#include "kernels/cpu/twins.h"

namespace llmz::cpu {
namespace {

/// A NaN among x may be passed over; the sum of exponentials then finds it.
template <class T, class Real>
LLMZ_INLINE Real row_max_loop(const T* x, int64_t n, Real largest) {
#pragma omp simd reduction(max : largest)
  for (int64_t i = 0; i < n; ++i) {
    const Real value = load(x + i);
    largest = value > largest ? value : largest;
  }
  return largest;
}

template <class T, class Real>
LLMZ_INLINE Real sum_exp_loop(const T* x, int64_t n, Real shift) {
  Real sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += exp(load(x + i) - shift);
  return sum;
}

template <class T, class Real>
LLMZ_INLINE void scaled_exp_loop(T* x, int64_t n, Real shift, Real scale) {
  for (int64_t i = 0; i < n; ++i) store(x + i, scale * exp(load(x + i) - shift));
}

/// Three passes over a row that stays in the second-level cache. Returns the row's loss.
template <class T>
double row_loss(T* x, int64_t n, int32_t target, bool write_gradient, compute_t<T> grad_scale) {
  using Real = compute_t<T>;
  if (target < 0) {
    if (write_gradient) std::fill(x, x + n, T{});
    return 0;
  }
  const Real largest = simd<row_max_loop<T, Real>>(x, n, -std::numeric_limits<Real>::infinity());
  double sum = 0;  // in chunks, so that rounding does not pile up with V
  for (int64_t i = 0; i < n; i += kChunk) {
    sum += static_cast<double>(simd<sum_exp_loop<T, Real>>(x + i, std::min(kChunk, n - i), largest));
  }
  const double loss = std::log(sum) + static_cast<double>(largest) - static_cast<double>(load(x + target));
  if (write_gradient) {
    const Real at_target = exp(load(x + target) - largest) / static_cast<Real>(sum);
    simd<scaled_exp_loop<T, Real>>(x, n, largest, static_cast<Real>(static_cast<double>(grad_scale) / sum));
    store(x + target, grad_scale * (at_target - 1));
  }
  return loss;
}

template <class T>
void cross_entropy(const Tensor& losses, const Tensor& logits, const Tensor& targets, bool write_gradient,
                   float grad_scale) {
  using Real = compute_t<T>;
#pragma omp parallel for schedule(static) if (logits.numel() > kParallelElements)
  for (int64_t t = 0; t < logits.dim(0); ++t) {
    const double loss =
        row_loss(logits.as<T>() + t * logits.stride(0), logits.dim(1), targets.as<int32_t>()[t * targets.stride(0)],
                 write_gradient, static_cast<Real>(grad_scale));
    losses.as<Real>()[t * losses.stride(0)] = static_cast<Real>(loss);
  }
}

}  // namespace

void softmax_cross_entropy(Tensor losses, Tensor logits, Tensor targets, bool write_gradient, float grad_scale) {
  for (int64_t t = 0; t < targets.dim(0); ++t) {
    const int32_t target = targets.as<int32_t>()[t * targets.stride(0)];
    check(target >= -1 && target < logits.dim(1),
          "softmax_cross_entropy: target {} of row {} is outside the {} columns of logits", target, t, logits.dim(1));
  }
  switch (logits.dtype) {
    case DType::f64: return cross_entropy<double>(losses, logits, targets, write_gradient, grad_scale);
    case DType::bf16: return cross_entropy<bf16>(losses, logits, targets, write_gradient, grad_scale);
    default: return cross_entropy<float>(losses, logits, targets, write_gradient, grad_scale);
  }
}

}  // namespace llmz::cpu
