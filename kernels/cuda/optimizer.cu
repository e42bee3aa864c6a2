#include "kernels/adam_scalars.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/limits.h"
#include "kernels/cuda/totals.cuh"
#include "kernels/cuda/twins.h"
#include "kernels/cuda/weights.cuh"

namespace llmz::cuda {
namespace {

/// Reads weight, gradient and both moments, writes weight and moments: 28 bytes an element in f32, and the arithmetic
/// hides behind them.
template <int N>
__global__ void adamw_kernel(WeightStore store, Operand m, Operand v, Operand grad, const float* grad_scale,
                             AdamScalars<float> s, Walk walk) {
  const float scale = grad_scale == nullptr ? 1.0f : *grad_scale;
  walk.each<N>([&](int64_t, int64_t i) {
    Pack<N> w = store.weight.load<N>(i, 0), first = m.load<N>(i, 0), second = v.load<N>(i, 0);
    const Pack<N> gradient = grad.load<N>(i, 0);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      const float g = gradient[k] * scale;
      first[k] = s.beta1 * first[k] + s.beta1_rest * g;
      second[k] = s.beta2 * second[k] + s.beta2_rest * g * g;
      w[k] = w[k] * s.keep - s.step_size * (first[k] / (sqrtf(second[k]) / s.root_correction + s.eps));
    }
    m.store<N>(i, 0, first);
    v.store<N>(i, 0, second);
    store.store<N>(i, w);
  });
}

/// partial[block] = Σ x² of the block's share, in double.
template <int N>
__global__ void squares_kernel(double* partial, Operand x, Walk walk) {
  double sum = 0;
  walk.each<N>([&](int64_t row, int64_t column) {
    const Pack<N> v = x.load<N>(x.offset(row), column);
    float squares = 0;
#pragma unroll
    for (int k = 0; k < N; ++k) squares += v[k] * v[k];
    sum += static_cast<double>(squares);
  });
  sum = block_sum(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ void clip_kernel(float* norm, float* scale, const void* total, bool total_is_double, float max_norm) {
  const double squares = total_is_double ? *static_cast<const double*>(total) : *static_cast<const float*>(total);
  const double n = sqrt(squares);
  const double wanted = static_cast<double>(max_norm) / (n + 1e-6);
  *norm = static_cast<float>(n);
  *scale = max_norm == 0.0f ? 1.0f : wanted >= 1.0 ? 1.0f : static_cast<float>(wanted);  // NaN stays NaN
}

}  // namespace

void adamw(Gpu& gpu, const AdamWArgs& a) {
  const Walk w = walk(a.weight, a.m, a.v, a.grad);  // all are contiguous
  const bool fours = walk_by_fours(a.weight, a.m, a.v, a.grad) && store_by_fours(a.weight, a.rounding);
  const float* const scale = a.grad_scale.present() ? a.grad_scale.as<float>() : nullptr;
  launch(gpu, "adamw", fours ? adamw_kernel<4> : adamw_kernel<1>, w.blocks(fours ? 4 : 1, kThreads, kMostBlocks),
         kThreads, 0, weight_store(a.weight, a.rounding), operand(a.m), operand(a.v), operand(a.grad), scale,
         AdamScalars<float>(a), w);
}

void sum_of_squares(Gpu& gpu, Tensor total, Tensor x, Tensor workspace) {
  const int64_t blocks = workspace.numel();
  auto* const partial = workspace.as<double>();
  const bool fours = walk_by_fours(x);
  launch(gpu, "sum_of_squares", fours ? squares_kernel<4> : squares_kernel<1>, static_cast<unsigned>(blocks), kThreads,
         0, partial, operand(x), walk(x));
  launch(gpu, "sum_of_squares.total", add_total_kernel<float>, 1, kThreads, 0, total.as<float>(), partial,
         static_cast<int>(blocks));
}

void clip_coefficient(Gpu& gpu, Tensor norm, Tensor scale, Tensor total, float max_norm) {
  launch(gpu, "clip_coefficient", clip_kernel, 1, 1, 0, norm.as<float>(), scale.as<float>(), total.data,
         total.dtype == DType::f64, max_norm);
}

}  // namespace llmz::cuda
