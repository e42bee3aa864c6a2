#include "kernels/adam_scalars.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/limits.h"
#include "kernels/cuda/moment_codes.cuh"
#include "kernels/cuda/twins.h"
#include "kernels/cuda/weights.cuh"

// All that is added up is added up in an order that the shape fixes. A step reads the gradient twice and weight and
// first moment once, and writes these two: with codes, f32 weights and bf16 gradients 2 + 2 + 8 + 2 bytes an element.
// The partial sums are 1/64 + 1/256 of a double an element.

namespace llmz::cuda {
namespace {

constexpr int kStrip = static_cast<int>(ops::kMomentBlock);  // columns that a warp works on
constexpr int kQuadsOfStrip = kStrip / (4 * kWarp);
constexpr int kWarps = 8;                                              // of a block
constexpr int kRowsOfWarp = static_cast<int>(kFactoredRows) / kWarps;  // in the statistics
constexpr int kUpdateRows = 4;                                         // of a warp in the update

__device__ int quad_column(int j) { return 4 * kWarp * j + 4 * static_cast<int>(threadIdx.x % kWarp); }

/// Columns column … column + 3 of a row (all matrices here are contiguous), zeros behind its end.
__device__ Pack<4> load_quad(const Operand& x, int64_t offset, int64_t column, int64_t width, bool fours) {
  if (fours && column < width) return x.load<4>(offset, column);
  Pack<4> quad{};
  if (!fours) {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if (column + k < width) quad[k] = x.at(offset + column + k);
    }
  }
  return quad;
}
__device__ void store_quad(const Operand& x, int64_t offset, int64_t column, int64_t width, bool fours,
                           const Pack<4>& quad) {
  if (fours) {
    if (column < width) x.store<4>(offset, column, quad);
    return;
  }
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    if (column + k < width) x.put(offset + column + k, quad[k]);
  }
}

/// The workspace: squares by block of rows and column, then by row and strip.
struct Sums {
  double *columns, *rows;
};
Sums sums_of(const FactoredAdamWArgs& a, const Tensor& workspace) {
  const int64_t m = a.weight.dim(0), n = a.weight.dim(1);
  auto* const columns = workspace.as<double>();
  return {columns, columns + ceil_div(m, kFactoredRows) * n};
}

const float* grad_scale_of(const FactoredAdamWArgs& a) {
  return a.grad_scale.present() ? a.grad_scale.as<float>() : nullptr;
}

/// Block (x: strip, y: kFactoredRows rows of the tile) of kWarps warps, each with kRowsOfWarp rows. `columns` and
/// `rows` start at the tile's first block and row.
__global__ void __launch_bounds__(kWarps* kWarp)
    statistics_kernel(double* columns, double* row_sums, Operand tile, const float* grad_scale, int64_t rows,
                      int64_t width, bool fours) {
  __shared__ float parts[kWarps][kStrip];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int64_t first_column = int64_t{blockIdx.x} * kStrip;
  const int64_t first_row = int64_t{blockIdx.y} * kFactoredRows + warp * kRowsOfWarp;
  const float scale = grad_scale == nullptr ? 1.0f : *grad_scale;
  float by_column[kQuadsOfStrip][4] = {};
#pragma unroll
  for (int r = 0; r < kRowsOfWarp; ++r) {
    if (first_row + r >= rows) break;
    const int64_t offset = (first_row + r) * width;
    float by_row = 0;
#pragma unroll
    for (int j = 0; j < kQuadsOfStrip; ++j) {
      const Pack<4> grad = load_quad(tile, offset, first_column + quad_column(j), width, fours);
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const float g = grad[k] * scale, square = g * g;
        by_column[j][k] += square;
        by_row += square;
      }
    }
    by_row = warp_sum(by_row);
    if (lane == 0) row_sums[(first_row + r) * gridDim.x + blockIdx.x] = static_cast<double>(by_row);
  }
#pragma unroll
  for (int j = 0; j < kQuadsOfStrip; ++j) {
#pragma unroll
    for (int k = 0; k < 4; ++k) parts[warp][quad_column(j) + k] = by_column[j][k];
  }
  __syncthreads();
  const int64_t column = first_column + threadIdx.x;
  if (column >= width) return;
  double sum = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) sum += static_cast<double>(parts[w][threadIdx.x]);
  columns[int64_t{blockIdx.y} * width + column] = sum;
}
static_assert(kWarps * kWarp == kStrip, "a thread to a column at the end");

/// A thread a column, and kWarps of them share its blocks of rows. Block (kWarp, kWarps). `keep`: β₂, or 0.
__global__ void __launch_bounds__(kWarps* kWarp)
    column_moments_kernel(float* moving, const double* sums, float keep, float rest, int64_t blocks, double rows,
                          int64_t width) {
  __shared__ double parts[kWarps][kWarp];
  const int64_t column = int64_t{blockIdx.x} * kWarp + threadIdx.x;
  double sum = 0;
  if (column < width) {
    for (int64_t b = threadIdx.y; b < blocks; b += kWarps) sum += sums[b * width + column];
  }
  parts[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= width) return;
#pragma unroll
  for (int w = 1; w < kWarps; ++w) sum += parts[w][threadIdx.x];
  moving[column] = keep * moving[column] + rest * static_cast<float>(sum / rows);
}

/// A warp a row.
__global__ void __launch_bounds__(kWarps* kWarp)
    row_moments_kernel(float* moving, const double* sums, float beta2, float rest, int64_t rows, int64_t width) {
  const int64_t row = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp, strips = (width + kStrip - 1) / kStrip;
  if (row >= rows) return;
  double sum = 0;
  for (int64_t s = threadIdx.x % kWarp; s < strips; s += kWarp) sum += sums[row * strips + s];
  sum = warp_sum(sum);
  if (threadIdx.x % kWarp == 0) {
    moving[row] = beta2 * moving[row] + rest * static_cast<float>(sum / static_cast<double>(width));
  }
}

/// One block. `of`: what the sum of these `rows` is divided by.
__global__ void __launch_bounds__(1024) mean_kernel(double* mean, const float* row, int64_t rows, double of) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < rows; i += blockDim.x) sum += static_cast<double>(row[i]);
  sum = block_sum(sum);
  if (threadIdx.x == 0) *mean = sum / of;
}

/// What the update works on; rows of weight and moments are counted in the whole tensor.
struct UpdateTensors {
  WeightStore store;
  Operand m, tile;
  uint8_t* codes;  ///< or null, and m is there
  float* scales;
  const float *row, *column;
  const double* mean;              ///< of `row`, over the whole weight
  int64_t first_row, rows, width;  ///< of the tile
  bool fours;
};

__device__ void load_codes(uint32_t (&q)[4], const uint8_t* codes, int64_t column, const UpdateTensors& t) {
  uint32_t word = 0x80808080u;  // zeros
  if (t.fours) {
    if (column < t.width) word = *reinterpret_cast<const uint32_t*>(codes + column);
#pragma unroll
    for (int k = 0; k < 4; ++k) q[k] = word >> (8 * k) & 255;
    return;
  }
#pragma unroll
  for (int k = 0; k < 4; ++k) q[k] = column + k < t.width ? codes[column + k] : 128u;
}
__device__ void store_codes(const uint32_t (&q)[4], uint8_t* codes, int64_t column, const UpdateTensors& t) {
  if (t.fours) {
    if (column < t.width) *reinterpret_cast<uint32_t*>(codes + column) = q[0] | q[1] << 8 | q[2] << 16 | q[3] << 24;
    return;
  }
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    if (column + k < t.width) codes[column + k] = static_cast<uint8_t>(q[k]);
  }
}

/// The first moments of a warp's strip of one row, dense or in codes.
template <bool kCoded>
__device__ void read_moments(float (&m)[kQuadsOfStrip][4], const UpdateTensors& t, int64_t row, int64_t first_column) {
  [[maybe_unused]] float scale = 0;
  if constexpr (kCoded) scale = t.scales[row * ((t.width + kStrip - 1) / kStrip) + first_column / kStrip];
#pragma unroll
  for (int j = 0; j < kQuadsOfStrip; ++j) {
    const int64_t column = first_column + quad_column(j);
    if constexpr (kCoded) {
      uint32_t q[4];
      load_codes(q, t.codes + row * t.width, column, t);
#pragma unroll
      for (int k = 0; k < 4; ++k) m[j][k] = decode_moment(q[k]) * scale;
    } else {
      const Pack<4> quad = load_quad(t.m, row * t.width, column, t.width, t.fours);
#pragma unroll
      for (int k = 0; k < 4; ++k) m[j][k] = quad[k];
    }
  }
}

/// All lanes of the warp call; columns behind the row's end hold 0.
template <bool kCoded>
__device__ void write_moments(const float (&m)[kQuadsOfStrip][4], const UpdateTensors& t, int64_t row,
                              int64_t first_column) {
  [[maybe_unused]] float inverse = 0;
  if constexpr (kCoded) {
    uint32_t largest = 0;
#pragma unroll
    for (int i = 0; i < 4 * kQuadsOfStrip; ++i) {
      const uint32_t magnitude = __float_as_uint(m[i / 4][i % 4]) & 0x7fffffffu;
      largest = largest > magnitude ? largest : magnitude;
    }
    for (int step = kWarp / 2; step > 0; step /= 2) {
      const uint32_t other = __shfl_xor_sync(kAllLanes, largest, step);
      largest = largest > other ? largest : other;
    }
    const float scale = __uint_as_float(largest);
    inverse = inverse_moment_scale(scale);
    if (threadIdx.x % kWarp == 0) t.scales[row * ((t.width + kStrip - 1) / kStrip) + first_column / kStrip] = scale;
  }
#pragma unroll
  for (int j = 0; j < kQuadsOfStrip; ++j) {
    const int64_t column = first_column + quad_column(j);
    if constexpr (kCoded) {
      uint32_t q[4];
#pragma unroll
      for (int k = 0; k < 4; ++k) q[k] = encode_moment(m[j][k] * inverse);
      store_codes(q, t.codes + row * t.width, column, t);
    } else {
      store_quad(t.m, row * t.width, column, t.width, t.fours, {m[j][0], m[j][1], m[j][2], m[j][3]});
    }
  }
}

__device__ void store_weights(const UpdateTensors& t, int64_t offset, int64_t column, const Pack<4>& quad) {
  if (t.fours) {
    if (column < t.width) t.store.store<4>(offset + column, quad);
    return;
  }
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    if (column + k < t.width) t.store.store<1>(offset + column + k, {quad[k]});
  }
}

/// A warp: a strip of kUpdateRows rows, the columns' averages in registers. Block (x: strip, y: kWarps·kUpdateRows
/// rows).
template <bool kCoded>
__global__ void __launch_bounds__(kWarps* kWarp)
    update_kernel(UpdateTensors t, const float* grad_scale, AdamScalars<float> s) {
  const int64_t first_column = int64_t{blockIdx.x} * kStrip;
  const float scale = grad_scale == nullptr ? 1.0f : *grad_scale;
  const double inverse_mean = *t.mean > 0 ? 1.0 / *t.mean : 0.0;
  float average[kQuadsOfStrip][4];
#pragma unroll
  for (int i = 0; i < 4 * kQuadsOfStrip; ++i) {
    const int64_t column = first_column + quad_column(i / 4) + i % 4;
    average[i / 4][i % 4] = column < t.width ? t.column[column] : 0.0f;
  }
#pragma unroll 1
  for (int r = 0; r < kUpdateRows; ++r) {
    const int64_t in_tile = (int64_t{blockIdx.y} * kUpdateRows + r) * kWarps + threadIdx.x / kWarp;
    if (in_tile >= t.rows) return;
    const int64_t row = t.first_row + in_tile, offset = row * t.width;
    const auto row_factor = static_cast<float>(static_cast<double>(t.row[row]) * inverse_mean);
    Pack<4> grad[kQuadsOfStrip], weight[kQuadsOfStrip];
#pragma unroll
    for (int j = 0; j < kQuadsOfStrip; ++j) {
      const int64_t column = first_column + quad_column(j);
      grad[j] = load_quad(t.tile, in_tile * t.width, column, t.width, t.fours);
      weight[j] = load_quad(t.store.weight, offset, column, t.width, t.fours);
    }
    float m[kQuadsOfStrip][4];
    read_moments<kCoded>(m, t, row, first_column);
#pragma unroll
    for (int j = 0; j < kQuadsOfStrip; ++j) {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const float first = s.beta1 * m[j][k] + s.beta1_rest * (grad[j][k] * scale);
        const float root = sqrtf(row_factor * average[j][k]) / s.root_correction;
        weight[j][k] = weight[j][k] * s.keep - s.step_size * (first / (root + s.eps));
        m[j][k] = first;
      }
      store_weights(t, offset, first_column + quad_column(j), weight[j]);
    }
    write_moments<kCoded>(m, t, row, first_column);
  }
}

}  // namespace

void factored_statistics(Gpu& gpu, const FactoredAdamWArgs& args, int64_t first_row, Tensor tile, Tensor sums) {
  const int64_t rows = tile.dim(0), width = tile.dim(1), strips = ceil_div(width, kStrip);
  const Sums to = sums_of(args, sums);
  launch(gpu, "factored_statistics", statistics_kernel,
         dim3(static_cast<unsigned>(strips), blocks_for(rows, kFactoredRows)), kWarps * kWarp, 0,
         to.columns + first_row / kFactoredRows * width, to.rows + first_row * strips, operand(tile),
         grad_scale_of(args), rows, width, by(4, tile));
}

void factored_moments(Gpu& gpu, const FactoredAdamWArgs& args, Tensor sums, Tensor mean, bool with_old) {
  const int64_t rows = args.weight.dim(0), width = args.weight.dim(1);
  const Sums from = sums_of(args, sums);
  const AdamScalars<float> s(args);
  const auto of = static_cast<double>(args.mean_rows());
  auto* const row = args.row.as<float>();
  launch(gpu, "factored_moments.columns", column_moments_kernel, blocks_for(width, kWarp), dim3(kWarp, kWarps), 0,
         args.column.as<float>(), from.columns, with_old ? s.beta2 : 0.0f, s.beta2_rest, ceil_div(rows, kFactoredRows),
         of, width);
  launch(gpu, "factored_moments.rows", row_moments_kernel, blocks_for(rows, kWarps), kWarps * kWarp, 0, row, from.rows,
         s.beta2, s.beta2_rest, rows, width);
  launch(gpu, "factored_moments.mean", mean_kernel, 1, 1024, 0, mean.as<double>(), row, rows, of);
}

void factored_update(Gpu& gpu, const FactoredAdamWArgs& args, int64_t first_row, Tensor tile, Tensor mean) {
  UpdateTensors t{};
  t.store = weight_store(args.weight, args.rounding);
  t.m = operand(args.m), t.tile = operand(tile);
  t.codes = args.m_codes.present() ? args.m_codes.as<uint8_t>() : nullptr;
  t.scales = args.m_scales.present() ? args.m_scales.as<float>() : nullptr;
  t.row = args.row.as<float>(), t.column = args.column.as<float>();
  t.mean = mean.as<double>();
  t.first_row = first_row, t.rows = tile.dim(0), t.width = tile.dim(1);
  t.fours = all_by_fours(args.weight, args.m, tile, args.rounding.shadow) && args.rounding.first % 4 == 0 &&
            reinterpret_cast<uintptr_t>(t.codes) % 4 == 0;
  const dim3 grid(blocks_for(t.width, kStrip), blocks_for(t.rows, kWarps * kUpdateRows));
  launch(gpu, "factored_update", t.codes != nullptr ? update_kernel<true> : update_kernel<false>, grid, kWarps * kWarp,
         0, t, grad_scale_of(args), AdamScalars<float>(args));
}

}  // namespace llmz::cuda
