#include "kernels/cuda/device.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/row_sketch.cuh"
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

/// What the forward kernels compute, N elements at a time.
struct Swiglu {
  Operand gate, up;

  template <int N>
  __device__ Pack<N> at(int64_t row, int64_t c) const {
    const Pack<N> a = gate.load<N>(gate.offset(row), c), b = up.load<N>(up.offset(row), c);
    Pack<N> y;
#pragma unroll
    for (int i = 0; i < N; ++i) y[i] = a[i] * sigmoid(a[i]) * b[i];
    return y;
  }
};
struct Gelu {
  Operand x;

  template <int N>
  __device__ Pack<N> at(int64_t row, int64_t c) const {
    Pack<N> v = x.load<N>(x.offset(row), c);
#pragma unroll
    for (int i = 0; i < N; ++i) v[i] = gelu(v[i]).value;
    return v;
  }
};

template <int N, class Function>
__global__ void forward_kernel(Operand out, Function f, int64_t rows, int64_t width) {
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const int64_t o = out.offset(row);
    for (int64_t c = threadIdx.x * N; c < width; c += blockDim.x * N) out.store<N>(o, c, f.template at<N>(row, c));
  }
}

/// And the sketch of the output, whose rows stay in shared memory as they were stored.
template <int N, class Function>
__global__ void forward_sketch_kernel(Operand out, Function f, RowSketch sketch) {
  float* const rows = dynamic_shared<float>();
  for (int k = 0; k < sketch.count(); ++k) {
    const Operand staged = staged_row(rows + k * sketch.n);
    const int64_t row = sketch.first() + k, o = out.offset(row);
    for (int64_t c = threadIdx.x * N; c < sketch.n; c += blockDim.x * N) {
      Pack<N> y = f.template at<N>(row, c);
      out.store<N>(o, c, y);
#pragma unroll
      for (int i = 0; i < N; ++i) y[i] = out.rounded(y[i]);
      staged.store<N>(0, c, y);
    }
  }
  __syncthreads();
  sketch.project(rows);
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

template <class Function>
void forward(Gpu& gpu, const char* name, const Tensor& out, const Function& f, bool fours,
             const SketchEpilogue& epilogue) {
  const int64_t rows = row_count(out), width = row_width(out);
  if (epilogue.z.present()) {
    const RowSketch all = row_sketch(epilogue, out);
    return launch(gpu, name, fours ? forward_sketch_kernel<4, Function> : forward_sketch_kernel<1, Function>,
                  all.blocks(), kThreads, all.shared_bytes(), operand(out), f, all);
  }
  launch(gpu, name, fours ? forward_kernel<4, Function> : forward_kernel<1, Function>, row_blocks(rows),
         threads_for_row(width, fours ? 4 : 1), 0, operand(out), f, rows, width);
}

}  // namespace

void swiglu_forward(Gpu& gpu, Tensor out, Tensor gate, Tensor up, const SketchEpilogue& epilogue) {
  forward(gpu, "swiglu_forward", out, Swiglu{operand(gate), operand(up)}, all_by_fours(out, gate, up), epilogue);
}

void swiglu_backward(Gpu& gpu, Tensor dgate, Tensor dup, Tensor dout, Tensor gate, Tensor up, Tensor row_sums) {
  const int64_t rows = row_count(dout), width = row_width(dout);
  const bool fours = all_by_fours(dgate, dup, dout, gate, up);
  launch(gpu, "swiglu_backward", fours ? swiglu_backward_kernel<4> : swiglu_backward_kernel<1>, row_blocks(rows),
         threads_for_row(width, fours ? 4 : 1), 0, operand(dgate), operand(dup), operand(dout), operand(gate),
         operand(up), sums_of(row_sums), rows, width);
}

void gelu_forward(Gpu& gpu, Tensor out, Tensor x, const SketchEpilogue& epilogue) {
  forward(gpu, "gelu_forward", out, Gelu{operand(x)}, all_by_fours(out, x), epilogue);
}

void gelu_backward(Gpu& gpu, Tensor dx, Tensor dout, Tensor x, Tensor row_sums) {
  const int64_t rows = row_count(x), width = row_width(x);
  const bool fours = all_by_fours(dx, dout, x);
  launch(gpu, "gelu_backward", fours ? gelu_backward_kernel<4> : gelu_backward_kernel<1>, row_blocks(rows),
         threads_for_row(width, fours ? 4 : 1), 0, operand(dx), operand(dout), operand(x), sums_of(row_sums), rows,
         width);
}

}  // namespace llmz::cuda
