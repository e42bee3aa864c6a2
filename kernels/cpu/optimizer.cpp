#include <algorithm>
#include <cmath>

#include "kernels/cpu/grad_scale.h"
#include "kernels/cpu/round_weights.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/twins.h"

namespace llmz::cpu {
namespace {

template <class Real>
LLMZ_INLINE void adamw_loop(Real* __restrict weight, Real* __restrict m, Real* __restrict v,
                            const Real* __restrict grad, const AdamScalars<Real>& s, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const Real g = grad[i] * s.grad_scale;
    const Real first = s.beta1 * m[i] + s.beta1_rest * g;
    const Real second = s.beta2 * v[i] + s.beta2_rest * g * g;
    m[i] = first;
    v[i] = second;
    weight[i] = weight[i] * s.keep - s.step_size * (first / (std::sqrt(second) / s.root_correction + s.eps));
  }
}

template <class Real>
LLMZ_INLINE Real squares_loop(const Real* x, int64_t n) {
  Real sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += x[i] * x[i];
  return sum;
}

LLMZ_SIMD_CLONES void adamw_row(float* weight, float* m, float* v, const float* grad, const AdamScalars<float>& s,
                                int64_t n) {
  adamw_loop(weight, m, v, grad, s, n);
}
void adamw_row(double* weight, double* m, double* v, const double* grad, const AdamScalars<double>& s, int64_t n) {
  adamw_loop(weight, m, v, grad, s, n);
}

LLMZ_SIMD_CLONES float row_squares(const float* x, int64_t n) { return squares_loop(x, n); }
double row_squares(const double* x, int64_t n) { return squares_loop(x, n); }

/// Chunks a piece of sum_of_squares.
constexpr int64_t kChunksPerPiece = 64;

}  // namespace

void adamw(const AdamWArgs& args) {
  with_compute_type(args.weight.dtype, [&]<class Real>(Real) {
    const AdamScalars<Real> scalars = adam_scalars<Real>(args);
    for_each_chunk<Real>(std::array{args.weight, args.m, args.v, args.grad}, [&](auto& t, const Chunk& c) {
      Real* const weight = t[0].modify(c);
      adamw_row(weight, t[1].modify(c), t[2].modify(c), t[3].read(c), scalars, c.count);
      round_weights(weight, args.rounding, c.column, c.count);
      for (size_t i = 0; i < 3; ++i) t[i].commit(c);
    });
  });
  if (args.rounding.shadow.present()) copy(args.rounding.shadow, args.weight);
}

int64_t sum_pieces(Tensor x) {
  const ChunkGrid grid(merge_dimensions(std::array{x})[0]);
  return std::max<int64_t>(1, ceil_div(grid.size(), kChunksPerPiece));
}

void sum_of_squares(Tensor total, Tensor x, Tensor workspace) {
  const Tensor merged = merge_dimensions(std::array{x})[0];
  const ChunkGrid grid(merged);
  const int64_t pieces = workspace.numel();
  auto* const sums = workspace.as<double>();
  with_compute_type(x.dtype, [&]<class Real>(Real) {
#pragma omp parallel if (pieces > 1)
    {
      Operand<Real> in(merged);
#pragma omp for schedule(static)
      for (int64_t p = 0; p < pieces; ++p) {
        double sum = 0;
        for (int64_t i = p * kChunksPerPiece; i < std::min(grid.size(), (p + 1) * kChunksPerPiece); ++i) {
          const Chunk c = grid[i];
          sum += static_cast<double>(row_squares(in.read(c), c.count));
        }
        sums[p] = sum;
      }
    }
    double sum = 0;
    for (int64_t p = 0; p < pieces; ++p) sum += sums[p];
    *total.as<Real>() += static_cast<Real>(sum);
  });
}

void clip_coefficient(Tensor norm, Tensor scale, Tensor total, float max_norm) {
  const double squares = total.dtype == DType::f64 ? *total.as<double>() : static_cast<double>(*total.as<float>());
  const double n = std::sqrt(squares);
  const double wanted = static_cast<double>(max_norm) / (n + 1e-6);
  *norm.as<float>() = static_cast<float>(n);
  *scale.as<float>() = max_norm == 0.0f ? 1.0f : wanted >= 1.0 ? 1.0f : static_cast<float>(wanted);  // NaN stays NaN
}

}  // namespace llmz::cpu
