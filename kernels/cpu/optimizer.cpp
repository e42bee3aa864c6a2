#include <algorithm>
#include <cmath>

#include "kernels/cpu/grad_scale.h"
#include "kernels/cpu/round_weights.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/twins.h"

namespace llmz::cpu {
namespace {

template <class W, class M, class G>
struct AdamStep {
  using Real = compute_t<W>;
  const W* weight;
  M *m, *v;
  const G* grad;
  const AdamScalars<Real>& s;

  /// Moves element i's moments; its new weight.
  LLMZ_INLINE Real operator()(int64_t i) const {
    const Real g = load(grad + i) * s.grad_scale;
    const Real first = s.beta1 * load(m + i) + s.beta1_rest * g;
    const Real second = s.beta2 * load(v + i) + s.beta2_rest * g * g;
    store(m + i, first);
    store(v + i, second);
    return load(weight + i) * s.keep - s.step_size * (first / (std::sqrt(second) / s.root_correction + s.eps));
  }
};

template <class W, class M, class G>
LLMZ_INLINE void adamw_loop(W* weight, M* m, M* v, const G* grad, const AdamScalars<compute_t<W>>& s,
                            const WeightOutput& out, int64_t n) {
  store_weights(weight, out, n, AdamStep<W, M, G>{weight, m, v, grad, s});
}

template <class W, class M, class G>
void adamw_as(const AdamWArgs& args) {
  const AdamScalars<compute_t<W>> scalars = adam_scalars<compute_t<W>>(args);
  const std::array flat = merge_dimensions(std::array{args.weight, args.m, args.v, args.grad});
  const ChunkGrid grid(flat[0]);
  // While random words are made no memory is asked for: in shorter turns the processor reads ahead across them.
  const int64_t step = args.rounding.stochastic ? kChunk / 2 : kChunk;
#pragma omp parallel if (grid.size() > kParallelChunks)
  {
    Operand<W> weight(flat[0]);
    Operand<M> m(flat[1]), v(flat[2]);
    Operand<G> grad(flat[3]);
    WeightRounder rounder(args.rounding);
#pragma omp for schedule(static)
    for (int64_t i = 0; i < grid.size(); ++i) {
      const Chunk c = grid[i];
      W* const w = weight.modify(c);
      M *const first = m.modify(c), *const second = v.modify(c);
      const G* const g = grad.read(c);
      for (int64_t j = 0; j < c.count; j += step) {
        const int64_t n = std::min(step, c.count - j);
        simd<adamw_loop<W, M, G>, W>(w + j, first + j, second + j, g + j, scalars, rounder.output(c.column + j, n), n);
      }
      weight.commit(c);
      m.commit(c);
      v.commit(c);
    }
  }
}

template <class T>
LLMZ_INLINE compute_t<T> squares_loop(const T* x, int64_t n) {
  compute_t<T> sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += load(x + i) * load(x + i);
  return sum;
}

/// Chunks a piece of sum_of_squares.
constexpr int64_t kChunksPerPiece = 64;

}  // namespace

void adamw(const AdamWArgs& args) {
  with_row_types(std::array{args.weight}, std::array{args.m, args.v}, [&]<class W, class M>(W, M) {
    with_row_type(std::array{args.grad}, [&]<class G>(G) {
      if constexpr (std::is_same_v<compute_t<W>, compute_t<G>>) adamw_as<W, M, G>(args);
    });
  });
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
  with_row_type(std::array{x}, [&]<class T>(T) {
    using Real = compute_t<T>;
#pragma omp parallel if (pieces > 1)
    {
      Operand<T> in(merged);
#pragma omp for schedule(static)
      for (int64_t p = 0; p < pieces; ++p) {
        double sum = 0;
        for (int64_t i = p * kChunksPerPiece; i < std::min(grid.size(), (p + 1) * kChunksPerPiece); ++i) {
          const Chunk c = grid[i];
          sum += static_cast<double>(simd<squares_loop<T>>(in.read(c), c.count));
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
