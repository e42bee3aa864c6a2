#include "kernels/cuda/device.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/limits.h"
#include "kernels/cuda/row_sketch.cuh"
#include "kernels/cuda/twins.h"

namespace llmz::cuda {
namespace {

struct NormForward {
  Operand out, xhat;
  float* rstd;
  Operand x, gain, bias;
  float eps;
  int64_t rows, width;
};

/// One row, by the whole block. It is read once from memory for the statistics and once more, then from the cache, for
/// the output: 1 read, 2 writes (x̂ and out) an element. With kStage it stays in `staged` in between, as does the output
/// afterwards; a thread sees its own columns of it only.
template <int N, bool kLayer, bool kStage>
__device__ void norm_row(const NormForward& a, int64_t row, Operand staged) {
  const float over_width = 1.0f / static_cast<float>(a.width);
  const int64_t at = a.x.offset(row);
  const auto first = [&](int64_t c) {
    const Pack<N> v = a.x.load<N>(at, c);
    if constexpr (kStage) staged.store<N>(0, c, v);
    return v;
  };
  const auto again = [&](int64_t c) { return kStage ? staged.load<N>(0, c) : a.x.load<N>(at, c); };
  float mean = 0, squares = 0;
  if (kLayer) {
    for (int64_t c = threadIdx.x * N; c < a.width; c += blockDim.x * N) {
      const Pack<N> v = first(c);
#pragma unroll
      for (int i = 0; i < N; ++i) mean += v[i];
    }
    mean = block_sum(mean) * over_width;
  }
  for (int64_t c = threadIdx.x * N; c < a.width; c += blockDim.x * N) {
    const Pack<N> v = kLayer ? again(c) : first(c);
#pragma unroll
    for (int i = 0; i < N; ++i) squares += (v[i] - mean) * (v[i] - mean);
  }
  const float r = 1.0f / sqrtf(block_sum(squares) * over_width + a.eps);
  if (threadIdx.x == 0) a.rstd[row] = r;
  for (int64_t c = threadIdx.x * N; c < a.width; c += blockDim.x * N) {
    Pack<N> v = again(c);
    const Pack<N> g = a.gain.load<N>(0, c);
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] = (v[i] - mean) * r;
    if (a.xhat.present()) {
      a.xhat.store<N>(a.xhat.offset(row), c, v);
#pragma unroll
      for (int i = 0; i < N; ++i) v[i] = a.xhat.rounded(v[i]);  // out is made from what was written
    }
    Pack<N> b;
#pragma unroll
    for (int i = 0; i < N; ++i) b[i] = 0;
    if (kLayer) b = a.bias.load<N>(0, c);
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] = v[i] * g[i] + b[i];
    a.out.store<N>(a.out.offset(row), c, v);
    if constexpr (kStage) {
#pragma unroll
      for (int i = 0; i < N; ++i) v[i] = a.out.rounded(v[i]);
      staged.store<N>(0, c, v);
    }
  }
}

/// One block a row.
template <int N, bool kLayer>
__global__ void norm_forward_kernel(NormForward a) {
  for (int64_t row = blockIdx.x; row < a.rows; row += gridDim.x) norm_row<N, kLayer, false>(a, row, {});
}

/// And the sketch of the output: some rows a block, one after the other, then their sketch.
template <int N, bool kLayer>
__global__ void norm_sketch_kernel(NormForward a, RowSketch sketch) {
  float* const rows = dynamic_shared<float>();
  for (int k = 0; k < sketch.count(); ++k) {
    norm_row<N, kLayer, true>(a, sketch.first() + k, staged_row(rows + k * a.width));
  }
  __syncthreads();
  sketch.project(rows);
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

/// A block has as many threads with a sketch as without: that fixes the order of the statistics' sums.
template <int N>
void forward(Gpu& gpu, bool layer, const NormForward& a, const SketchEpilogue& epilogue, const Tensor& out) {
  const int threads = threads_for_row(a.width, N);
  if (epilogue.z.present()) {
    const RowSketch rows = row_sketch(epilogue, out);
    return launch(gpu, layer ? "layernorm_forward_sketch" : "rmsnorm_forward_sketch",
                  layer ? norm_sketch_kernel<N, true> : norm_sketch_kernel<N, false>, rows.blocks(), threads,
                  rows.shared_bytes(), a, rows);
  }
  launch(gpu, layer ? "layernorm_forward" : "rmsnorm_forward",
         layer ? norm_forward_kernel<N, true> : norm_forward_kernel<N, false>, row_blocks(a.rows), threads, 0, a);
}

void forward(Gpu& gpu, bool layer, const Tensor& out, const Tensor& xhat, const Tensor& rstd, const Tensor& x,
             const Tensor& gain, const Tensor& bias, float eps, const SketchEpilogue& epilogue) {
  const int64_t width = x.dim(x.rank() - 1);
  const NormForward a{operand(out),  operand(xhat), rstd.as<float>(),  operand(x), operand(gain),
                      operand(bias), eps,           x.numel() / width, width};
  (all_by_fours(out, xhat, x, gain, bias) ? forward<4> : forward<1>)(gpu, layer, a, epilogue, out);
}

template <int N>
void backward(Gpu& gpu, bool layer, Tensor dx, Tensor dgain, Tensor dbias, Tensor dy, Tensor xhat, Tensor rstd,
              Tensor gain, Tensor row_sums, Tensor workspace) {
  const int64_t width = dx.dim(dx.rank() - 1), rows = dx.numel() / width, blocks = workspace.dim(0),
                pitch = workspace.dim(1);
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

void rmsnorm_forward(Gpu& gpu, Tensor out, Tensor xhat, Tensor rstd, Tensor x, Tensor gain, float eps,
                     const SketchEpilogue& epilogue) {
  forward(gpu, false, out, xhat, rstd, x, gain, {}, eps, epilogue);
}

void layernorm_forward(Gpu& gpu, Tensor out, Tensor xhat, Tensor rstd, Tensor x, Tensor gain, Tensor bias, float eps,
                       const SketchEpilogue& epilogue) {
  forward(gpu, true, out, xhat, rstd, x, gain, bias, eps, epilogue);
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
