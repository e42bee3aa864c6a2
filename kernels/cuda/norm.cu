#include "kernels/cuda/device.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/limits.h"
#include "kernels/cuda/twins.h"

namespace llmz::cuda {
namespace {

/// One block a row. The row is read once from memory for the statistics and once more, then from the cache, for the
/// output: 1 read, 2 writes (x̂ and out) an element.
template <int N, bool kLayer>
__global__ void norm_forward_kernel(Operand out, Operand xhat, float* rstd, Operand x, Operand gain, Operand bias,
                                    float eps, int64_t rows, int64_t width) {
  const float over_width = 1.0f / static_cast<float>(width);
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const int64_t at = x.offset(row);
    float mean = 0, squares = 0;
    if (kLayer) {
      for (int64_t c = threadIdx.x * N; c < width; c += blockDim.x * N) {
        const Pack<N> v = x.load<N>(at, c);
#pragma unroll
        for (int i = 0; i < N; ++i) mean += v[i];
      }
      mean = block_sum(mean) * over_width;
    }
    for (int64_t c = threadIdx.x * N; c < width; c += blockDim.x * N) {
      const Pack<N> v = x.load<N>(at, c);
#pragma unroll
      for (int i = 0; i < N; ++i) squares += (v[i] - mean) * (v[i] - mean);
    }
    const float r = 1.0f / sqrtf(block_sum(squares) * over_width + eps);
    if (threadIdx.x == 0) rstd[row] = r;
    for (int64_t c = threadIdx.x * N; c < width; c += blockDim.x * N) {
      Pack<N> v = x.load<N>(at, c);
      const Pack<N> g = gain.load<N>(0, c);
#pragma unroll
      for (int i = 0; i < N; ++i) v[i] = (v[i] - mean) * r;
      if (xhat.present()) {
        xhat.store<N>(xhat.offset(row), c, v);
#pragma unroll
        for (int i = 0; i < N; ++i) v[i] = xhat.rounded(v[i]);  // out is made from what was written
      }
      Pack<N> b;
#pragma unroll
      for (int i = 0; i < N; ++i) b[i] = 0;
      if (kLayer) b = bias.load<N>(0, c);
#pragma unroll
      for (int i = 0; i < N; ++i) v[i] = v[i] * g[i] + b[i];
      out.store<N>(out.offset(row), c, v);
    }
  }
}

/// out = x̂·gain (+ bias), with the forward kernel's arithmetic.
template <int N>
__global__ void apply_gain_kernel(Operand out, Operand xhat, Operand gain, Operand bias, int64_t rows, int64_t width) {
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    for (int64_t c = threadIdx.x * N; c < width; c += blockDim.x * N) {
      Pack<N> v = xhat.load<N>(xhat.offset(row), c);
      const Pack<N> g = gain.load<N>(0, c);
      Pack<N> b;
#pragma unroll
      for (int i = 0; i < N; ++i) b[i] = 0;
      if (bias.present()) b = bias.load<N>(0, c);
#pragma unroll
      for (int i = 0; i < N; ++i) v[i] = v[i] * g[i] + b[i];
      out.store<N>(out.offset(row), c, v);
    }
  }
}

/// A block takes every gridDim-th row; the sums for the gain (and bias) lie in its shared memory, each column with one
/// thread, and go to partial [blocks, outputs·H] at the end. An element: dy, x̂ and dx are read, dx is written.
template <int N, bool kLayer>
__global__ void norm_backward_kernel(Operand dx, float* partial, Operand dy, Operand xhat, const float* rstd,
                                     Operand gain, const float* row_sums, int64_t rows, int64_t width) {
  float* const dgain = dynamic_shared<float>();
  float* const dbias = dgain + width;
  for (int64_t c = threadIdx.x; c < (kLayer ? 2 : 1) * width; c += blockDim.x) dgain[c] = 0;
  __syncthreads();
  const float over_width = 1.0f / static_cast<float>(width);
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    float plain = 0, with_xhat = 0;
    if (kLayer || row_sums == nullptr) {
      for (int64_t c = threadIdx.x * N; c < width; c += blockDim.x * N) {
        const Pack<N> d = dy.load<N>(dy.offset(row), c), h = xhat.load<N>(xhat.offset(row), c), g = gain.load<N>(0, c);
#pragma unroll
        for (int i = 0; i < N; ++i) {
          plain += d[i] * g[i];
          with_xhat += d[i] * g[i] * h[i];
        }
      }
    }
    plain = kLayer ? block_sum(plain) * over_width : 0.0f;
    with_xhat = (row_sums == nullptr ? block_sum(with_xhat) : row_sums[row]) * over_width;
    const float r = rstd[row];
    for (int64_t c = threadIdx.x * N; c < width; c += blockDim.x * N) {
      const Pack<N> d = dy.load<N>(dy.offset(row), c), h = xhat.load<N>(xhat.offset(row), c), g = gain.load<N>(0, c);
      Pack<N> x = dx.load<N>(dx.offset(row), c);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        x[i] += r * (d[i] * g[i] - plain - h[i] * with_xhat);
        dgain[c + i] += d[i] * h[i];
        if (kLayer) dbias[c + i] += d[i];
      }
      dx.store<N>(dx.offset(row), c, x);
    }
  }
  __syncthreads();
  const int64_t outputs = (kLayer ? 2 : 1) * width;
  for (int64_t c = threadIdx.x; c < outputs; c += blockDim.x) partial[blockIdx.x * outputs + c] = dgain[c];
}

/// sum[c] += Σ_block partial[block, first + c]. A warp's lanes take 32 columns, its block's warps the partials in turn.
__global__ void add_partials_kernel(Operand sum, const float* partial, int64_t blocks, int64_t pitch, int64_t first,
                                    int64_t width) {
  __shared__ float parts[kWarp][kWarp + 1];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kWarp + lane;
  float total = 0;
  if (column < width) {
    for (int64_t b = warp; b < blocks; b += warps) total += partial[b * pitch + first + column];
  }
  parts[warp][lane] = total;
  __syncthreads();
  if (warp != 0 || column >= width) return;
  for (int w = 1; w < warps; ++w) total += parts[w][lane];
  sum.put(column, sum.at(column) + total);
}

template <int N>
void forward(Gpu& gpu, bool layer, Tensor out, Tensor xhat, Tensor rstd, Tensor x, Tensor gain, Tensor bias,
             float eps) {
  launch(gpu, layer ? "layernorm_forward" : "rmsnorm_forward",
         layer ? norm_forward_kernel<N, true> : norm_forward_kernel<N, false>, row_blocks(x.dim(0)),
         threads_for_row(x.dim(1), N), 0, operand(out), operand(xhat), rstd.as<float>(), operand(x), operand(gain),
         operand(bias), eps, x.dim(0), x.dim(1));
}

template <int N>
void backward(Gpu& gpu, bool layer, Tensor dx, Tensor dgain, Tensor dbias, Tensor dy, Tensor xhat, Tensor rstd,
              Tensor gain, Tensor row_sums, Tensor workspace) {
  const int64_t rows = dx.dim(0), width = dx.dim(1), blocks = workspace.dim(0), pitch = workspace.dim(1);
  auto* const partial = workspace.as<float>();
  const float* const sums = row_sums.present() ? row_sums.as<float>() : nullptr;
  launch(gpu, layer ? "layernorm_backward" : "rmsnorm_backward",
         layer ? norm_backward_kernel<N, true> : norm_backward_kernel<N, false>, static_cast<unsigned>(blocks),
         threads_for_row(width, N), static_cast<size_t>(pitch) * sizeof(float), operand(dx), partial, operand(dy),
         operand(xhat), rstd.as<float>(), operand(gain), sums, rows, width);
  const unsigned columns = blocks_for(width, kWarp);
  launch(gpu, "norm_backward.gain", add_partials_kernel, columns, kThreads, 0, operand(dgain), partial, blocks, pitch,
         int64_t{0}, width);
  if (layer) {
    launch(gpu, "norm_backward.bias", add_partials_kernel, columns, kThreads, 0, operand(dbias), partial, blocks, pitch,
           width, width);
  }
}

}  // namespace

void rmsnorm_forward(Gpu& gpu, Tensor out, Tensor xhat, Tensor rstd, Tensor x, Tensor gain, float eps) {
  const bool fours = all_by_fours(out, xhat, x, gain);
  (fours ? forward<4> : forward<1>)(gpu, false, out, xhat, rstd, x, gain, {}, eps);
}

void layernorm_forward(Gpu& gpu, Tensor out, Tensor xhat, Tensor rstd, Tensor x, Tensor gain, Tensor bias, float eps) {
  const bool fours = all_by_fours(out, xhat, x, gain, bias);
  (fours ? forward<4> : forward<1>)(gpu, true, out, xhat, rstd, x, gain, bias, eps);
}

void norm_apply_gain(Gpu& gpu, Tensor out, Tensor xhat, Tensor gain, Tensor bias) {
  const bool fours = all_by_fours(out, xhat, gain, bias);
  const int64_t rows = out.dim(0), width = out.dim(1);
  launch(gpu, "norm_apply_gain", fours ? apply_gain_kernel<4> : apply_gain_kernel<1>, row_blocks(rows),
         threads_for_row(width, fours ? 4 : 1), 0, operand(out), operand(xhat), operand(gain), operand(bias), rows,
         width);
}

void rmsnorm_backward(Gpu& gpu, Tensor dx, Tensor dgain, Tensor dy, Tensor xhat, Tensor rstd, Tensor gain,
                      Tensor row_sums, Tensor workspace) {
  const bool fours = all_by_fours(dx, dy, xhat, gain);
  (fours ? backward<4> : backward<1>)(gpu, false, dx, dgain, {}, dy, xhat, rstd, gain, row_sums, workspace);
}

void layernorm_backward(Gpu& gpu, Tensor dx, Tensor dgain, Tensor dbias, Tensor dy, Tensor xhat, Tensor rstd,
                        Tensor gain, Tensor row_sums, Tensor workspace) {
  const bool fours = all_by_fours(dx, dy, xhat, gain);
  (fours ? backward<4> : backward<1>)(gpu, true, dx, dgain, dbias, dy, xhat, rstd, gain, row_sums, workspace);
}

}  // namespace llmz::cuda
