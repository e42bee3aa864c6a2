#include "kernels/cuda/device.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/twins.h"

namespace llmz::cuda {
namespace {

constexpr int kRotaryBlocks = 1024;  // about: positions times parts of the batch

/// One block a position and part of the batch: the position's cosines and sines (in double: an angle of thousands of
/// radians keeps its fraction), then every head's pairs, N at a time. Reads and writes each element once.
template <int N>
__global__ void rotary_kernel(Operand x, int64_t batch, int64_t sequence, int64_t heads, int64_t half,
                              int64_t position_offset, double base, bool inverse) {
  float* const cosine = dynamic_shared<float>();
  float* const sine = cosine + half;
  const int64_t s = blockIdx.x;
  for (int64_t i = threadIdx.x; i < half; i += blockDim.x) {
    const double frequency = pow(base, -static_cast<double>(i) / static_cast<double>(half));
    const double angle = static_cast<double>(position_offset + s) * frequency;
    cosine[i] = static_cast<float>(cos(angle));
    sine[i] = static_cast<float>(inverse ? -sin(angle) : sin(angle));
  }
  __syncthreads();
  const int64_t packs = half / N, items = heads * packs;
  for (int64_t b = blockIdx.y; b < batch; b += gridDim.y) {
    for (int64_t item = threadIdx.x; item < items; item += blockDim.x) {
      const int64_t head = item / packs, i = (item - head * packs) * N;
      const int64_t at = x.offset((b * sequence + s) * heads + head);
      Pack<N> low = x.load<N>(at, i), high = x.load<N>(at, i + half);
#pragma unroll
      for (int k = 0; k < N; ++k) {
        const float a = low[k], c = high[k];
        low[k] = a * cosine[i + k] - c * sine[i + k];
        high[k] = c * cosine[i + k] + a * sine[i + k];
      }
      x.store<N>(at, i, low);
      x.store<N>(at, i + half, high);
    }
  }
}

}  // namespace

void rotary(Gpu& gpu, Tensor x, int64_t position_offset, float base, bool inverse) {
  const int64_t batch = x.dim(0), sequence = x.dim(1), half = x.dim(3) / 2;
  if (x.numel() == 0) return;
  const int64_t parts = ceil_div(kRotaryBlocks, sequence) < batch ? ceil_div(kRotaryBlocks, sequence) : batch;
  const bool fours = by(4, x) && half % 4 == 0;
  launch(gpu, "rotary", fours ? rotary_kernel<4> : rotary_kernel<1>,
         dim3(static_cast<unsigned>(sequence), static_cast<unsigned>(parts)), kThreads,
         static_cast<size_t>(2 * half) * sizeof(float), operand(x), batch, sequence, x.dim(2), half, position_offset,
         static_cast<double>(base), inverse);
}

}  // namespace llmz::cuda
