#include "kernels/cuda/device.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/twins.h"

// One block a row (a stride of rows): reads and writes once, in fours where addresses allow. SwiGLU forward moves
// 3·T·F elements, backward 5·T·F; nothing else counts.

namespace llmz::cuda {
namespace {

__device__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

struct GeluTerms {
  float value, slope;
};
__device__ GeluTerms gelu(float x) {
  constexpr float kRoot = 0.7978845608028654f, kCubic = 0.044715f;  // √(2/π)
  const float t = tanhf(kRoot * (x + kCubic * x * x * x));
  return {0.5f * x * (1.0f + t),
          0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * kRoot * (1.0f + 3.0f * kCubic * x * x)};
}

template <int N>
__global__ void swiglu_forward_kernel(Operand out, Operand gate, Operand up, int64_t rows, int64_t width) {
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const int64_t o = out.offset(row), g = gate.offset(row), u = up.offset(row);
    for (int64_t c = threadIdx.x * N; c < width; c += blockDim.x * N) {
      const Pack<N> a = gate.load<N>(g, c), b = up.load<N>(u, c);
      Pack<N> y;
#pragma unroll
      for (int i = 0; i < N; ++i) y[i] = a[i] * sigmoid(a[i]) * b[i];
      out.store<N>(o, c, y);
    }
  }
}

template <int N>
__global__ void swiglu_backward_kernel(Operand dgate, Operand dup, Operand dout, Operand gate, Operand up,
                                       float* row_sums, int64_t rows, int64_t width) {
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const int64_t dg = dgate.offset(row), du = dup.offset(row), d = dout.offset(row);
    const int64_t g = gate.offset(row), u = up.offset(row);
    float sum = 0;
    for (int64_t c = threadIdx.x * N; c < width; c += blockDim.x * N) {
      const Pack<N> dy = dout.load<N>(d, c), a = gate.load<N>(g, c), b = up.load<N>(u, c);
      Pack<N> da, db;
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const float s = sigmoid(a[i]);
        da[i] = dy[i] * b[i] * s * (1.0f + a[i] * (1.0f - s));
        db[i] = dy[i] * a[i] * s;
        sum += da[i] * a[i] + db[i] * b[i];
      }
      dgate.store<N>(dg, c, da);
      dup.store<N>(du, c, db);
    }
    if (row_sums != nullptr) {
      sum = block_sum(sum);
      if (threadIdx.x == 0) row_sums[row] = sum;
    }
  }
}

template <int N>
__global__ void gelu_forward_kernel(Operand out, Operand x, int64_t rows, int64_t width) {
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const int64_t o = out.offset(row), in = x.offset(row);
    for (int64_t c = threadIdx.x * N; c < width; c += blockDim.x * N) {
      Pack<N> v = x.load<N>(in, c);
#pragma unroll
      for (int i = 0; i < N; ++i) v[i] = gelu(v[i]).value;
      out.store<N>(o, c, v);
    }
  }
}

template <int N>
__global__ void gelu_backward_kernel(Operand dx, Operand dout, Operand x, float* row_sums, int64_t rows,
                                     int64_t width) {
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const int64_t to = dx.offset(row), d = dout.offset(row), in = x.offset(row);
    float sum = 0;
    for (int64_t c = threadIdx.x * N; c < width; c += blockDim.x * N) {
      const Pack<N> dy = dout.load<N>(d, c), v = x.load<N>(in, c);
      Pack<N> result;
#pragma unroll
      for (int i = 0; i < N; ++i) {
        result[i] = dy[i] * gelu(v[i]).slope;
        sum += result[i] * v[i];
      }
      dx.store<N>(to, c, result);
    }
    if (row_sums != nullptr) {
      sum = block_sum(sum);
      if (threadIdx.x == 0) row_sums[row] = sum;
    }
  }
}

float* sums_of(const Tensor& t) { return t.present() ? t.as<float>() : nullptr; }

}  // namespace

void swiglu_forward(Gpu& gpu, Tensor out, Tensor gate, Tensor up) {
  const int64_t rows = row_count(out), width = row_width(out);
  const bool fours = all_by_fours(out, gate, up);
  launch(gpu, "swiglu_forward", fours ? swiglu_forward_kernel<4> : swiglu_forward_kernel<1>, row_blocks(rows),
         threads_for_row(width, fours ? 4 : 1), 0, operand(out), operand(gate), operand(up), rows, width);
}

void swiglu_backward(Gpu& gpu, Tensor dgate, Tensor dup, Tensor dout, Tensor gate, Tensor up, Tensor row_sums) {
  const int64_t rows = row_count(dout), width = row_width(dout);
  const bool fours = all_by_fours(dgate, dup, dout, gate, up);
  launch(gpu, "swiglu_backward", fours ? swiglu_backward_kernel<4> : swiglu_backward_kernel<1>, row_blocks(rows),
         threads_for_row(width, fours ? 4 : 1), 0, operand(dgate), operand(dup), operand(dout), operand(gate),
         operand(up), sums_of(row_sums), rows, width);
}

void gelu_forward(Gpu& gpu, Tensor out, Tensor x) {
  const int64_t rows = row_count(x), width = row_width(x);
  const bool fours = all_by_fours(out, x);
  launch(gpu, "gelu_forward", fours ? gelu_forward_kernel<4> : gelu_forward_kernel<1>, row_blocks(rows),
         threads_for_row(width, fours ? 4 : 1), 0, operand(out), operand(x), rows, width);
}

void gelu_backward(Gpu& gpu, Tensor dx, Tensor dout, Tensor x, Tensor row_sums) {
  const int64_t rows = row_count(x), width = row_width(x);
  const bool fours = all_by_fours(dx, dout, x);
  launch(gpu, "gelu_backward", fours ? gelu_backward_kernel<4> : gelu_backward_kernel<1>, row_blocks(rows),
         threads_for_row(width, fours ? 4 : 1), 0, operand(dx), operand(dout), operand(x), sums_of(row_sums), rows,
         width);
}

}  // namespace llmz::cuda
