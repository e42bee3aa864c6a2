#include "kernels/cuda/blas.h"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/limits.h"
#include "kernels/cuda/twins.h"

namespace llmz::cuda {
namespace {

/// out = in, or out += in, whatever their types. One block a row.
template <int N>
__global__ void convert_kernel(Operand out, Operand in, bool accumulate, int64_t rows, int64_t width) {
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const int64_t o = out.offset(row), from = in.offset(row);
    for (int64_t c = threadIdx.x * N; c < width; c += blockDim.x * N) {
      Pack<N> x = in.load<N>(from, c);
      if (accumulate) {
        const Pack<N> before = out.load<N>(o, c);
#pragma unroll
        for (int i = 0; i < N; ++i) x[i] += before[i];
      }
      out.store<N>(o, c, x);
    }
  }
}

void convert(Gpu& gpu, const Tensor& out, const Tensor& in, bool accumulate) {
  const int64_t rows = row_count(out), width = row_width(out);
  const bool fours = all_by_fours(out, in);
  launch(gpu, "matmul.convert", fours ? convert_kernel<4> : convert_kernel<1>, row_blocks(rows),
         threads_for_row(width, fours ? 4 : 1), 0, operand(out), operand(in), accumulate, rows, width);
}

/// y += bias on every row.
template <int N>
__global__ void add_bias_kernel(Operand y, Operand bias, int64_t rows, int64_t width) {
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const int64_t at = y.offset(row);
    for (int64_t c = threadIdx.x * N; c < width; c += blockDim.x * N) {
      Pack<N> x = y.load<N>(at, c);
      const Pack<N> b = bias.load<N>(0, c);
#pragma unroll
      for (int i = 0; i < N; ++i) x[i] += b[i];
      y.store<N>(at, c, x);
    }
  }
}

constexpr int kPartThreads = 128;

/// parts[blockIdx.y] = sum of `each` rows from blockIdx.y·each on. A thread has N columns.
template <int N>
__global__ void bias_parts_kernel(float* parts, Operand dy, int64_t rows, int64_t width, int64_t each) {
  const int64_t c = (blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x) * N;
  if (c >= width) return;
  const int64_t first = blockIdx.y * each, end = first + each < rows ? first + each : rows;
  Pack<N> sum = {};
#pragma unroll 4
  for (int64_t row = first; row < end; ++row) {
    const Pack<N> x = dy.load<N>(dy.offset(row), c);
#pragma unroll
    for (int i = 0; i < N; ++i) sum[i] += x[i];
  }
#pragma unroll
  for (int i = 0; i < N; ++i) parts[blockIdx.y * width + c + i] = sum[i];
}

constexpr int kTotalLanes = 16;  // threads that share a column

/// dbias[c] += sum of parts [count, width] over the first dimension.
__global__ void bias_total_kernel(Operand dbias, const float* parts, int64_t count, int64_t width) {
  __shared__ float sums[kTotalLanes][kWarp];
  const int64_t c = blockIdx.x * static_cast<int64_t>(kWarp) + threadIdx.x;
  float sum = 0;
  if (c < width) {
#pragma unroll 4
    for (int64_t p = threadIdx.y; p < count; p += kTotalLanes) sum += parts[p * width + c];
  }
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || c >= width) return;
  for (int i = 1; i < kTotalLanes; ++i) sum += sums[i][threadIdx.x];
  dbias.put(c, dbias.at(c) + sum);
}

/// Hands out copies, f32 or of another type, from the workspace behind cuBLASLt's part.
class Copies {
 public:
  explicit Copies(const Tensor& workspace) : next_(static_cast<unsigned char*>(workspace.data) + kBlasWorkspaceBytes) {}

  Tensor like(const Tensor& t, DType type = DType::f32) {
    Tensor copy(next_, type, t.shape, t.device);
    copy.strides[0] = matmul_copy_pitch(t);
    next_ += matmul_copy_bytes(t, type);
    return copy;
  }

 private:
  unsigned char* next_;
};

/// By cuBLASLt, with what it does not add by itself added behind it.
void product_and_bias(Gpu& gpu, const MatmulArgs& args, void* workspace) {
  MatmulArgs product = args;
  const bool fused = blas_takes_bias(args);
  if (!fused) product.bias = {};
  blas_matmul(gpu, product, workspace);
  if (args.bias.present() && !fused) add_bias(gpu, args.c, args.bias);
}

void matmul_f32(Gpu& gpu, const MatmulArgs& args, const Tensor& workspace) {
  Copies copies(workspace);
  MatmulArgs product = args;
  const bool narrow = args.c.dtype == DType::bf16;
  if (narrow) {
    product.c = copies.like(args.c);
    product.accumulate = false;
  }
  for (Tensor* t : {&product.a, &product.b}) {
    if (t->dtype == DType::f32) continue;
    const Tensor copy = copies.like(*t);
    convert(gpu, copy, *t, false);
    *t = copy;
  }
  product_and_bias(gpu, product, workspace.data);
  if (narrow) convert(gpu, args.c, product.c, args.accumulate);
}

void matmul_aligned(Gpu& gpu, const MatmulArgs& args, const Tensor& workspace) {
  Copies copies(workspace);
  MatmulArgs product = args;
  for (Tensor* t : {&product.a, &product.b}) {
    if (!matmul_aligns(*t)) continue;
    const Tensor copy = copies.like(*t, DType::bf16);
    convert(gpu, copy, *t, false);
    *t = copy;
  }
  product_and_bias(gpu, product, workspace.data);
}

void clear(Gpu& gpu, const Tensor& t) {
  const size_t element = dtype_bytes(t.dtype);
  for (int64_t row = 0; row < t.dim(0); ++row) {
    gpu.fill(static_cast<unsigned char*>(t.data) + row * t.stride(0) * element, 0, t.dim(1) * element);
  }
}

}  // namespace

void matmul(Gpu& gpu, const MatmulArgs& args, Tensor workspace) {
  if (args.c.numel() == 0) return;
  if (args.a.numel() == 0) {  // an empty sum
    if (!args.accumulate) clear(gpu, args.c);
    if (args.bias.present()) add_bias(gpu, args.c, args.bias);
  } else if (matmul_takes_copies(args)) {
    matmul_f32(gpu, args, workspace);
  } else {
    matmul_aligned(gpu, args, workspace);
  }
}

void add_bias(Gpu& gpu, Tensor y, Tensor bias) {
  const int64_t rows = row_count(y), width = row_width(y);
  const bool fours = all_by_fours(y, bias);
  launch(gpu, "add_bias", fours ? add_bias_kernel<4> : add_bias_kernel<1>, row_blocks(rows),
         threads_for_row(width, fours ? 4 : 1), 0, operand(y), operand(bias), rows, width);
}

void bias_backward(Gpu& gpu, Tensor dbias, Tensor dy, Tensor workspace) {
  const int64_t rows = row_count(dy), width = row_width(dy);
  if (rows == 0) return;
  // Rows a block and blocks follow from the rows alone, and with them the order of additions.
  const int64_t each = ceil_div(rows, kReduceBlocks), blocks = ceil_div(rows, each);
  const bool fours = by(4, dy);
  const int columns = kPartThreads * (fours ? 4 : 1);
  float* const parts = workspace.as<float>();
  launch(gpu, "bias_backward.parts", fours ? bias_parts_kernel<4> : bias_parts_kernel<1>,
         dim3(blocks_for(width, columns), static_cast<unsigned>(blocks)), kPartThreads, 0, parts, operand(dy), rows,
         width, each);
  launch(gpu, "bias_backward.total", bias_total_kernel, blocks_for(width, kWarp), dim3(kWarp, kTotalLanes), 0,
         operand(dbias), parts, blocks, width);
}

}  // namespace llmz::cuda
