#include <algorithm>
#include <cmath>

#include "kernels/cpu/grad_scale.h"
#include "kernels/cpu/moment_codes.h"
#include "kernels/cpu/round_weights.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/twins.h"

namespace llmz::cpu {
namespace {

/// Rows whose squares are added before they join a column's sum; divides the rows of an expanded tile.
constexpr int64_t kRowsInBlock = 64;

static_assert(kChunk % ops::kMomentBlock == 0, "a chunk is whole blocks of moments");

template <class G>
LLMZ_INLINE compute_t<G> squares_loop(double* __restrict columns, const G* __restrict grad, compute_t<G> scale,
                                      int64_t n) {
  compute_t<G> sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) {
    const compute_t<G> g = load(grad + i) * scale, square = g * g;
    sum += square;
    columns[i] += static_cast<double>(square);
  }
  return sum;
}

template <class W, class G>
struct FactoredStep {
  using Real = compute_t<W>;
  const W* weight;
  Real* m;
  const G* grad;
  const Real* column;
  Real row_factor;  ///< row_i / mean(row)
  const AdamScalars<Real>& s;

  /// Moves element i's first moment; its new weight.
  LLMZ_INLINE Real operator()(int64_t i) const {
    const Real first = s.beta1 * m[i] + s.beta1_rest * (load(grad + i) * s.grad_scale);
    m[i] = first;
    const Real root = std::sqrt(row_factor * column[i]);
    return load(weight + i) * s.keep - s.step_size * (first / (root / s.root_correction + s.eps));
  }
};

template <class W, class G>
LLMZ_INLINE void update_loop(W* weight, compute_t<W>* m, const G* grad, const compute_t<W>* column,
                             compute_t<W> row_factor, const AdamScalars<compute_t<W>>& s, const WeightOutput& out,
                             int64_t n) {
  store_weights(weight, out, n, FactoredStep<W, G>{weight, m, grad, column, row_factor, s});
}

template <class Real>
double sum_of(const Real* x, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]);
  return sum;
}

/// The first moment, dense or in codes, a chunk at a time.
template <class Real>
class FirstMoment {
 public:
  explicit FirstMoment(const FactoredAdamWArgs& a) : dense_(a.m), codes_(a.m_codes), scales_(a.m_scales) {}

  Real* modify(const Chunk& c) {
    if (dense_.present()) return dense_.modify(c);
    decode_moments(buffer_, code(c), scale(c), c.count);
    return buffer_;
  }
  void commit(const Chunk& c) {
    if (dense_.present()) return dense_.commit(c);
    encode_moments(code(c), scale(c), buffer_, c.count);
  }

 private:
  uint8_t* code(const Chunk& c) const { return codes_.as<uint8_t>() + c.row * codes_.dim(1) + c.column; }
  float* scale(const Chunk& c) const {
    return scales_.as<float>() + c.row * scales_.dim(1) + c.column / ops::kMomentBlock;
  }

  Operand<Real> dense_;
  Tensor codes_, scales_;
  alignas(64) Real buffer_[kChunk];
};

}  // namespace

int64_t factored_blocks(int64_t rows) { return ceil_div(rows, kRowsInBlock); }

/// Σ_i g² of each block of rows into sums, mean_j g² of each row into the moving average.
void factored_statistics(const FactoredAdamWArgs& args, int64_t first_row, Tensor tile, Tensor sums) {
  const int64_t rows = tile.dim(0), width = tile.dim(1), blocks = ceil_div(rows, kRowsInBlock);
  const int64_t first_block = first_row / kRowsInBlock;
  with_row_type(std::array{tile}, [&]<class G>(G) {
    using Real = compute_t<G>;
    const AdamScalars<Real> s = adam_scalars<Real>(args);
    auto* const moving = static_cast<Real*>(args.row.data) + first_row;
#pragma omp parallel if (tile.numel() > kParallelElements)
    {
      Operand<G> grad(tile);
#pragma omp for schedule(static)
      for (int64_t b = 0; b < blocks; ++b) {
        double* const columns = sums.as<double>() + (first_block + b) * sums.stride(0);
        std::fill_n(columns, width, 0.0);
        for (int64_t t = b * kRowsInBlock; t < std::min(rows, (b + 1) * kRowsInBlock); ++t) {
          double squares = 0;
          for_chunks_of_row(t, width, [&](const Chunk& c) {
            squares +=
                static_cast<double>(simd<squares_loop<G>, G>(columns + c.column, grad.read(c), s.grad_scale, c.count));
          });
          moving[t] = s.beta2 * moving[t] + s.beta2_rest * static_cast<Real>(squares / static_cast<double>(width));
        }
      }
    }
  });
}

/// The columns' moving averages, from the blocks' sums in their order, and the mean of the rows'.
void factored_moments(const FactoredAdamWArgs& args, Tensor sums, Tensor mean, bool with_old) {
  constexpr int64_t kColumns = 256;  // a task
  const int64_t width = args.weight.dim(1), blocks = factored_blocks(args.weight.dim(0));
  const auto rows = static_cast<double>(args.mean_rows());
  with_compute_type(args.weight.dtype, [&]<class Real>(Real) {
    const AdamScalars<Real> s = adam_scalars<Real>(args);
    *mean.as<double>() = sum_of(static_cast<const Real*>(args.row.data), args.weight.dim(0)) / rows;
    const Real keep = with_old ? s.beta2 : Real(0);
    auto* const moving = static_cast<Real*>(args.column.data);
#pragma omp parallel for schedule(static) if (blocks * width > kParallelElements)
    for (int64_t first = 0; first < width; first += kColumns) {
      const int64_t count = std::min(kColumns, width - first);
      double squares[kColumns] = {};
      for (int64_t b = 0; b < blocks; ++b) {
        const double* block = sums.as<double>() + b * sums.stride(0) + first;
        for (int64_t j = 0; j < count; ++j) squares[j] += block[j];
      }
      for (int64_t j = 0; j < count; ++j) {
        Real& average = moving[first + j];
        average = keep * average + s.beta2_rest * static_cast<Real>(squares[j] / rows);
      }
    }
  });
}

void factored_update(const FactoredAdamWArgs& args, int64_t first_row, Tensor tile, Tensor mean_of_rows) {
  const int64_t rows = tile.dim(0), width = tile.dim(1);
  with_row_types(std::array{args.weight}, std::array{tile}, [&]<class W, class G>(W, G) {
    using Real = compute_t<W>;
    const AdamScalars<Real> s = adam_scalars<Real>(args);
    const auto* row = static_cast<const Real*>(args.row.data);
    const auto* column = static_cast<const Real*>(args.column.data);
    const double mean = *mean_of_rows.as<double>();
#pragma omp parallel if (tile.numel() > kParallelElements)
    {
      Operand<G> grad(tile);
      Operand<W> weight(args.weight);
      FirstMoment<Real> first(args);
      WeightRounder rounder(args.rounding);
#pragma omp for schedule(static)
      for (int64_t t = 0; t < rows; ++t) {
        const auto factor = static_cast<Real>(mean > 0 ? static_cast<double>(row[first_row + t]) / mean : 0.0);
        for_chunks_of_row(t, width, [&](const Chunk& c) {
          const Chunk whole{first_row + t, c.column, c.count};
          simd<update_loop<W, G>, W>(weight.modify(whole), first.modify(whole), grad.read(c), column + c.column, factor,
                                     s, rounder.output(whole.row * width + whole.column, whole.count), c.count);
          weight.commit(whole);
          first.commit(whole);
        });
      }
    }
  });
}

}  // namespace llmz::cpu
