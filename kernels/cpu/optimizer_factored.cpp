#include <algorithm>
#include <cmath>

#include "kernels/cpu/adam_scalars.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/twins.h"

namespace llmz::cpu {
namespace {

/// Rows whose squares are added before they join a column's sum; divides the rows of an expanded tile.
constexpr int64_t kRowsInBlock = 64;
constexpr int64_t kBlock = ops::kMomentBlock;

// The signed dynamic tree of 8 bits (Dettmers et al. 2022): |q| = 2^i + j, 0 ≤ j < 2^i, i = 0 … 6, stands for
// 10^(i−6)·(0.1 + 0.9·(j + ½)/2^i); q = 0 for 0. The byte is q + 128, and 0 where memory is fresh.

LLMZ_INLINE float power_of_ten(int32_t level) {
  float p = 1e-6f;
  p = level >= 1 ? 1e-5f : p;
  p = level >= 2 ? 1e-4f : p;
  p = level >= 3 ? 1e-3f : p;
  p = level >= 4 ? 1e-2f : p;
  p = level >= 5 ? 1e-1f : p;
  return level >= 6 ? 1.0f : p;
}

LLMZ_INLINE float tree_value(int32_t level, int32_t j) {
  const float width = std::bit_cast<float>((127 + level) << 23);  // 2^level
  return power_of_ten(level) * (0.1f + 0.9f * ((static_cast<float>(j) + 0.5f) / width));
}

LLMZ_INLINE float decode_tree(uint8_t code) {
  const int32_t q = static_cast<int32_t>(code) - 128, a = q < 0 ? -q : q;
  const int32_t level = static_cast<int32_t>(std::bit_cast<uint32_t>(static_cast<float>(a)) >> 23) - 127;
  const float value = tree_value(level, a - (1 << (level & 7)));
  return a == 0 || code == 0 ? 0.0f : (q < 0 ? -value : value);
}

/// The nearest value to x, |x| ≤ 1. Within a level values are equally far apart; between levels the boundary lies
/// half-way between the last of one and the first of the next.
LLMZ_INLINE uint8_t encode_tree(float x) {
  const float a = x < 0 ? -x : x;
  int32_t level = -1;
  for (int32_t i = 0; i < 7; ++i) {
    const float first = tree_value(i, 0);
    const float last = i == 0 ? 0.0f : tree_value(i - 1, (1 << (i - 1)) - 1);
    level += a >= 0.5f * (first + last) ? 1 : 0;
  }
  const int32_t safe = level < 0 ? 0 : level;
  const float width = std::bit_cast<float>((127 + safe) << 23);
  const float position = (a / power_of_ten(safe) - 0.1f) * (width / 0.9f);
  int32_t j = static_cast<int32_t>(position < 0 ? 0.0f : position);
  const int32_t most = (1 << safe) - 1;
  j = j > most ? most : j;
  const int32_t magnitude = level < 0 ? 0 : (1 << safe) + j;
  return static_cast<uint8_t>(128 + (x < 0 ? -magnitude : magnitude));
}

LLMZ_SIMD_CLONES void decode_block(float* m, const uint8_t* codes, float scale, int64_t n) {
  for (int64_t i = 0; i < n; ++i) m[i] = scale * decode_tree(codes[i]);
}

LLMZ_SIMD_CLONES float largest_of(const float* x, int64_t n) {
  float most = 0;
#pragma omp simd reduction(max : most)
  for (int64_t i = 0; i < n; ++i) most = std::max(most, x[i] < 0 ? -x[i] : x[i]);
  return most;
}

LLMZ_SIMD_CLONES void encode_block(uint8_t* codes, const float* m, float inverse, int64_t n) {
  for (int64_t i = 0; i < n; ++i) codes[i] = encode_tree(m[i] * inverse);
}

template <class Real>
LLMZ_INLINE Real squares_loop(double* __restrict columns, const Real* __restrict grad, Real scale, int64_t n) {
  Real sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) {
    const Real g = grad[i] * scale, square = g * g;
    sum += square;
    columns[i] += static_cast<double>(square);
  }
  return sum;
}

LLMZ_SIMD_CLONES float squares_row(double* columns, const float* grad, float scale, int64_t n) {
  return squares_loop(columns, grad, scale, n);
}
double squares_row(double* columns, const double* grad, double scale, int64_t n) {
  return squares_loop(columns, grad, scale, n);
}

/// `row_factor`: row_i / mean(row); m is the new first moment afterwards.
template <class Real>
LLMZ_INLINE void update_loop(Real* __restrict weight, Real* __restrict m, const Real* __restrict grad,
                             const Real* __restrict column, Real row_factor, const AdamScalars<Real>& s, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const Real first = s.beta1 * m[i] + s.beta1_rest * (grad[i] * s.grad_scale);
    m[i] = first;
    const Real root = std::sqrt(row_factor * column[i]);
    weight[i] = weight[i] * s.keep - s.step_size * (first / (root / s.root_correction + s.eps));
  }
}

LLMZ_SIMD_CLONES void update_row(float* weight, float* m, const float* grad, const float* column, float row_factor,
                                 const AdamScalars<float>& s, int64_t n) {
  update_loop(weight, m, grad, column, row_factor, s, n);
}
void update_row(double* weight, double* m, const double* grad, const double* column, double row_factor,
                const AdamScalars<double>& s, int64_t n) {
  update_loop(weight, m, grad, column, row_factor, s, n);
}

/// The first moment of one block of a row: read, and written back after the update.
template <class Real>
class FirstMoment {
 public:
  explicit FirstMoment(const FactoredAdamWArgs& a) : args_(a), dense_(a.m) {}

  Real* read(const Chunk& c) {
    if (!args_.m_codes.present()) return dense_.modify(c);
    decode_block(buffer_, codes(c), scale(c), c.count);
    if constexpr (std::is_same_v<Real, float>) {
      return buffer_;
    } else {
      std::copy_n(buffer_, c.count, values_);
      return values_;
    }
  }
  void write(const Chunk& c) {
    if (!args_.m_codes.present()) return dense_.commit(c);
    if constexpr (!std::is_same_v<Real, float>) {
      for (int64_t i = 0; i < c.count; ++i) buffer_[i] = static_cast<float>(values_[i]);
    }
    const float most = largest_of(buffer_, c.count);
    scale(c) = most;
    encode_block(codes(c), buffer_, most > 0 ? 1.0f / most : 0.0f, c.count);
  }

 private:
  uint8_t* codes(const Chunk& c) const {
    return args_.m_codes.as<uint8_t>() + c.row * args_.m_codes.stride(0) + c.column;
  }
  float& scale(const Chunk& c) const {
    return args_.m_scales.as<float>()[c.row * args_.m_scales.stride(0) + c.column / kBlock];
  }

  const FactoredAdamWArgs& args_;
  Operand<Real> dense_;
  alignas(64) float buffer_[kBlock];
  alignas(64) Real values_[std::is_same_v<Real, float> ? 1 : kBlock];
};

/// Calls f(chunk) for each block of 256 elements of a row.
template <class F>
void for_blocks_of_row(int64_t row, int64_t width, F&& f) {
  for (int64_t column = 0; column < width; column += kBlock) f(Chunk{row, column, std::min(kBlock, width - column)});
}

}  // namespace

int64_t factored_blocks(int64_t rows) { return ceil_div(rows, kRowsInBlock); }

/// Σ_i g² of each block of rows into sums, mean_j g² of each row into the moving average.
void factored_statistics(const FactoredAdamWArgs& args, int64_t first_row, Tensor tile, Tensor sums) {
  const int64_t rows = tile.dim(0), width = tile.dim(1), blocks = ceil_div(rows, kRowsInBlock);
  const int64_t first_block = first_row / kRowsInBlock;
  with_compute_type(args.weight.dtype, [&]<class Real>(Real) {
    const AdamScalars<Real> s(args);
    auto* const moving = static_cast<Real*>(args.row.data) + first_row;
#pragma omp parallel if (tile.numel() > kParallelElements)
    {
      Operand<Real> grad(tile);
#pragma omp for schedule(static)
      for (int64_t b = 0; b < blocks; ++b) {
        double* const columns = sums.as<double>() + (first_block + b) * sums.stride(0);
        std::fill_n(columns, width, 0.0);
        for (int64_t t = b * kRowsInBlock; t < std::min(rows, (b + 1) * kRowsInBlock); ++t) {
          double squares = 0;
          for_blocks_of_row(t, width, [&](const Chunk& c) {
            squares += static_cast<double>(squares_row(columns + c.column, grad.read(c), s.grad_scale, c.count));
          });
          moving[t] = s.beta2 * moving[t] + s.beta2_rest * static_cast<Real>(squares / static_cast<double>(width));
        }
      }
    }
  });
}

/// The columns' moving averages from the blocks' sums, and 1/mean(row) for the update.
void factored_moments(const FactoredAdamWArgs& args, Tensor sums) {
  const int64_t rows = args.weight.dim(0), width = args.weight.dim(1), blocks = factored_blocks(rows);
  with_compute_type(args.weight.dtype, [&]<class Real>(Real) {
    const AdamScalars<Real> s(args);
    auto* const moving = static_cast<Real*>(args.column.data);
    for (int64_t j = 0; j < width; ++j) {
      double squares = 0;
      for (int64_t b = 0; b < blocks; ++b) squares += sums.as<double>()[b * sums.stride(0) + j];
      moving[j] = s.beta2 * moving[j] + s.beta2_rest * static_cast<Real>(squares / static_cast<double>(rows));
    }
  });
}

void factored_update(const FactoredAdamWArgs& args, int64_t first_row, Tensor tile) {
  const int64_t rows = tile.dim(0), width = tile.dim(1);
  with_compute_type(args.weight.dtype, [&]<class Real>(Real) {
    const AdamScalars<Real> s(args);
    const auto* row = static_cast<const Real*>(args.row.data);
    const auto* column = static_cast<const Real*>(args.column.data);
    double mean = 0;
    for (int64_t i = 0; i < args.weight.dim(0); ++i) mean += static_cast<double>(row[i]);
    mean /= static_cast<double>(args.weight.dim(0));
#pragma omp parallel if (tile.numel() > kParallelElements)
    {
      Operand<Real> grad(tile), weight(args.weight);
      FirstMoment<Real> first(args);
#pragma omp for schedule(static)
      for (int64_t t = 0; t < rows; ++t) {
        const auto factor = static_cast<Real>(mean > 0 ? static_cast<double>(row[first_row + t]) / mean : 0.0);
        for_blocks_of_row(t, width, [&](const Chunk& c) {
          const Chunk whole{first_row + t, c.column, c.count};
          update_row(weight.modify(whole), first.read(whole), grad.read(c), column + c.column, factor, s, c.count);
          weight.commit(whole);
          first.write(whole);
        });
      }
    }
  });
}

}  // namespace llmz::cpu
