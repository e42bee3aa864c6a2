#include "kernels/cuda/device.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/limits.h"
#include "kernels/cuda/random.cuh"
#include "kernels/cuda/totals.cuh"
#include "kernels/cuda/twins.h"
#include "kernels/cuda/weights.cuh"

// All of these are as fast as memory: each element is read and written once.

namespace llmz::cuda {
namespace {

template <int N>
__global__ void add_kernel(Operand y, Operand x, Walk walk) {
  walk.each<N>([&](int64_t row, int64_t column) {
    Pack<N> a = y.load<N>(y.offset(row), column);
    const Pack<N> b = x.load<N>(x.offset(row), column);
#pragma unroll
    for (int i = 0; i < N; ++i) a[i] += b[i];
    y.store<N>(y.offset(row), column, a);
  });
}

template <int N>
__global__ void copy_kernel(Operand out, Operand in, Walk walk) {
  walk.each<N>(
      [&](int64_t row, int64_t column) { out.store<N>(out.offset(row), column, in.load<N>(in.offset(row), column)); });
}

/// For bytes: `Operand` counts elements, of which it knows only the two float types.
__global__ void copy_bytes_kernel(Operand out, Operand in, Walk walk) {
  walk.each<1>([&](int64_t row, int64_t column) {
    static_cast<uint8_t*>(out.data)[out.offset(row) + column] =
        static_cast<const uint8_t*>(in.data)[in.offset(row) + column];
  });
}

template <int N>
__global__ void fill_kernel(Operand x, float value, Walk walk) {
  Pack<N> v;
#pragma unroll
  for (int i = 0; i < N; ++i) v[i] = value;
  walk.each<N>([&](int64_t row, int64_t column) { x.store<N>(x.offset(row), column, v); });
}

template <int N>
__global__ void scale_kernel(Operand x, float factor, Walk walk) {
  walk.each<N>([&](int64_t row, int64_t column) {
    Pack<N> v = x.load<N>(x.offset(row), column);
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] *= factor;
    x.store<N>(x.offset(row), column, v);
  });
}

__global__ void stochastic_kernel(WeightStore store, Operand in, int64_t width, Walk walk) {
  walk.each<1>(
      [&](int64_t row, int64_t column) { store.store<1>(row * width + column, in.load<1>(in.offset(row), column)); });
}

__global__ void identity_kernel(Operand x, int64_t n) {
  for (int64_t column = threadIdx.x; column < n; column += blockDim.x) {
    x.put(x.offset(blockIdx.x) + column, column == blockIdx.x ? 1.0f : 0.0f);
  }
}

/// One draw of Philox gives four elements; `first` need not be a multiple of four.
__global__ void normal_kernel(Operand x, DeviceStream stream, uint64_t first, int64_t count, float stddev) {
  const uint64_t index = first / 4 + static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (4 * index >= first + static_cast<uint64_t>(count)) return;
  const uint4 b = stream.block(index);
  const float2 low = normal_pair(b.x, b.y), high = normal_pair(b.z, b.w);
  const float values[4] = {low.x, low.y, high.x, high.y};
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const int64_t i = static_cast<int64_t>(4 * index + k) - static_cast<int64_t>(first);
    if (i >= 0 && i < count) x.put(i, stddev * values[k]);
  }
}

/// sums[row] = alpha·Σ a·b (+ sums[row]); one block a row.
template <int N>
__global__ void row_dot_kernel(float* sums, Operand a, Operand b, bool b_is_vector, float alpha, bool accumulate,
                               int64_t rows, int64_t width) {
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    float sum = 0;
    for (int64_t c = threadIdx.x * N; c < width; c += blockDim.x * N) {
      const Pack<N> x = a.load<N>(a.offset(row), c), y = b.load<N>(b_is_vector ? 0 : b.offset(row), c);
#pragma unroll
      for (int i = 0; i < N; ++i) sum += x[i] * y[i];
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) sums[row] = alpha * sum + (accumulate ? sums[row] : 0.0f);
  }
}

template <int N>
__global__ void row_means_kernel(Operand x, int64_t rows, int64_t width) {
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    float sum = 0;
    for (int64_t c = threadIdx.x * N; c < width; c += blockDim.x * N) {
      const Pack<N> v = x.load<N>(x.offset(row), c);
#pragma unroll
      for (int i = 0; i < N; ++i) sum += v[i];
    }
    const float mean = block_sum(sum) / static_cast<float>(width);
    Pack<N> v;
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] = mean;
    for (int64_t c = threadIdx.x * N; c < width; c += blockDim.x * N) x.store<N>(x.offset(row), c, v);
  }
}

/// partial[block] = Σ (a − b)², partial[blocks + block] = Σ b² of the block's share.
__global__ void difference_kernel(double* partial, Operand a, Operand b, Walk walk) {
  double difference = 0, size = 0;
  walk.each<1>([&](int64_t row, int64_t column) {
    const double x = a.at(a.offset(row) + column), y = b.at(b.offset(row) + column);
    difference += (x - y) * (x - y);
    size += y * y;
  });
  difference = block_sum(difference);
  size = block_sum(size);
  if (threadIdx.x == 0) partial[blockIdx.x] = difference, partial[gridDim.x + blockIdx.x] = size;
}

__global__ void sum_kernel(double* partial, Operand x, Walk walk) {
  double sum = 0;
  walk.each<1>([&](int64_t row, int64_t column) { sum += static_cast<double>(x.at(x.offset(row) + column)); });
  sum = block_sum(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ void difference_total_kernel(double* norms, const double* partial, int blocks) {
  const double* const mine = partial + blockIdx.x * blocks;
  double sum = 0;
  for (int i = threadIdx.x; i < blocks; i += blockDim.x) sum += mine[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) norms[blockIdx.x] = sum;
}

}  // namespace

void add(Gpu& gpu, Tensor y, Tensor x) {
  const Walk w = walk(y, x);
  const bool fours = walk_by_fours(y, x);
  launch(gpu, "add", fours ? add_kernel<4> : add_kernel<1>, w.blocks(fours ? 4 : 1, kThreads, kMostBlocks), kThreads, 0,
         operand(y), operand(x), w);
}

void copy(Gpu& gpu, Tensor out, Tensor in) {
  const Walk w = walk(out, in);
  if (out.dtype == DType::u8) {
    return launch(gpu, "copy", copy_bytes_kernel, w.blocks(1, kThreads, kMostBlocks), kThreads, 0, operand(out),
                  operand(in), w);
  }
  // Four-byte integers travel as floats: nothing is computed with them.
  const bool fours = walk_by_fours(out, in);
  launch(gpu, "copy", fours ? copy_kernel<4> : copy_kernel<1>, w.blocks(fours ? 4 : 1, kThreads, kMostBlocks), kThreads,
         0, operand(out), operand(in), w);
}

void round_stochastically(Gpu& gpu, Tensor out, Tensor in, const RandomStream& stream, uint64_t first) {
  const Walk w = walk(out, in);
  ops::WeightRounding rounding;
  rounding.stochastic = stream;
  rounding.first = first;
  launch(gpu, "round_stochastically", stochastic_kernel, w.blocks(1, kThreads, kMostBlocks), kThreads, 0,
         weight_store(out, rounding), operand(in), w.width, w);
}

void scale(Gpu& gpu, Tensor x, double factor) {
  const Walk w = walk(x);
  const bool fours = walk_by_fours(x);
  launch(gpu, "scale", fours ? scale_kernel<4> : scale_kernel<1>, w.blocks(fours ? 4 : 1, kThreads, kMostBlocks),
         kThreads, 0, operand(x), static_cast<float>(factor), w);
}

void fill(Gpu& gpu, Tensor x, double value) {
  const Walk w = walk(x);
  const bool fours = walk_by_fours(x);
  launch(gpu, "fill", fours ? fill_kernel<4> : fill_kernel<1>, w.blocks(fours ? 4 : 1, kThreads, kMostBlocks), kThreads,
         0, operand(x), static_cast<float>(value), w);
}

void fill_normal(Gpu& gpu, Tensor x, const RandomStream& stream, uint64_t first, float stddev) {
  if (x.numel() == 0) return;
  const int64_t draws = static_cast<int64_t>((first + static_cast<uint64_t>(x.numel()) + 3) / 4 - first / 4);
  launch(gpu, "fill_normal", normal_kernel, blocks_for(draws, kThreads), kThreads, 0, operand(x), device_stream(stream),
         first, x.numel(), stddev);
}

void set_identity(Gpu& gpu, Tensor x) {
  launch(gpu, "set_identity", identity_kernel, static_cast<unsigned>(x.dim(0)), kThreads, 0, operand(x), x.dim(0));
}

void row_dot(Gpu& gpu, Tensor sums, Tensor a, Tensor b, float alpha, bool accumulate) {
  const bool fours = all_by_fours(a, b);
  launch(gpu, "row_dot", fours ? row_dot_kernel<4> : row_dot_kernel<1>, row_blocks(a.dim(0)),
         threads_for_row(a.dim(1), fours ? 4 : 1), 0, sums.as<float>(), operand(a), operand(b), b.rank() == 1, alpha,
         accumulate, a.dim(0), a.dim(1));
}

void row_means(Gpu& gpu, Tensor x) {
  const bool fours = all_by_fours(x);
  launch(gpu, "row_means", fours ? row_means_kernel<4> : row_means_kernel<1>, row_blocks(x.dim(0)),
         threads_for_row(x.dim(1), fours ? 4 : 1), 0, operand(x), x.dim(0), x.dim(1));
}

void add_sum(Gpu& gpu, Tensor total, Tensor x, Tensor workspace) {
  const int64_t blocks = workspace.numel();
  auto* const partial = workspace.as<double>();
  launch(gpu, "add_sum", sum_kernel, static_cast<unsigned>(blocks), kThreads, 0, partial, operand(x), walk(x));
  launch(gpu, "add_sum.total", add_total_kernel<double>, 1, kThreads, 0, total.as<double>(), partial,
         static_cast<int>(blocks));
}

void difference_norms(Gpu& gpu, Tensor norms, Tensor a, Tensor b, Tensor workspace) {
  const int64_t blocks = workspace.numel() / 2;
  auto* const partial = workspace.as<double>();
  launch(gpu, "difference_norms", difference_kernel, static_cast<unsigned>(blocks), kThreads, 0, partial, operand(a),
         operand(b), walk(a, b));
  launch(gpu, "difference_norms", difference_total_kernel, 2, kThreads, 0, norms.as<double>(), partial,
         static_cast<int>(blocks));
}

}  // namespace llmz::cuda
