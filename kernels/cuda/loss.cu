#include "kernels/cuda/device.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/twins.h"

namespace llmz::cuda {
namespace {

constexpr int kLossThreads = 512;

/// Running maximum and Σ exp(x − maximum).
struct Softmax {
  float largest = -INFINITY, sum = 0;
  __device__ void add(float x) {
    if (x > largest) {
      sum = sum * expf(largest - x) + 1.0f;
      largest = x;
    } else {
      sum += expf(x - largest);
    }
  }
};

/// One block a row of V logits: one pass for the softmax's two numbers, one for the gradient in place. The second pass
/// finds the row in the second-level cache (64 KB at V = 32000 and bf16), so memory sees V reads and V writes.
template <int N>
__global__ void cross_entropy_kernel(float* losses, Operand logits, const int32_t* targets, bool write_gradient,
                                     float grad_scale, int64_t rows, int64_t width) {
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const int64_t at = logits.offset(row);
    const int target = targets[row];
    Softmax mine;
    for (int64_t c = threadIdx.x * N; c < width; c += blockDim.x * N) {
      const Pack<N> x = logits.load<N>(at, c);
#pragma unroll
      for (int i = 0; i < N; ++i) mine.add(x[i]);
    }
    const float largest = block_max(mine.largest);
    const float part = mine.largest == -INFINITY ? 0.0f : mine.sum * expf(mine.largest - largest);
    const float sum = block_sum(part);
    const float logit = target >= 0 ? logits.at(at + target) : 0.0f;
    __syncthreads();  // everyone has read the target's logit before it is overwritten
    if (threadIdx.x == 0) losses[row] = target >= 0 ? logf(sum) + largest - logit : 0.0f;
    if (!write_gradient) continue;
    const float scale = target >= 0 ? grad_scale / sum : 0.0f;
    for (int64_t c = threadIdx.x * N; c < width; c += blockDim.x * N) {
      Pack<N> x = logits.load<N>(at, c);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        x[i] = target < 0 ? 0.0f : scale * expf(x[i] - largest) - (c + i == target ? grad_scale : 0.0f);
      }
      logits.store<N>(at, c, x);
    }
  }
}

}  // namespace

void softmax_cross_entropy(Gpu& gpu, Tensor losses, Tensor logits, Tensor targets, bool write_gradient,
                           float grad_scale) {
  const int64_t rows = logits.dim(0), width = logits.dim(1);
  const bool fours = all_by_fours(logits);
  launch(gpu, "softmax_cross_entropy", fours ? cross_entropy_kernel<4> : cross_entropy_kernel<1>, row_blocks(rows),
         width >= 4 * kLossThreads ? kLossThreads : threads_for_row(width, fours ? 4 : 1), 0, losses.as<float>(),
         operand(logits), targets.as<int32_t>(), write_gradient, grad_scale, rows, width);
}

}  // namespace llmz::cuda
