#pragma once

#include "kernels/cuda/device.cuh"

namespace llmz::cuda {

/// The second half of a reduction, one block: total[0] += Σ partial[0 … blocks − 1], in an order fixed by `blocks`.
template <class Real>
__global__ void add_total_kernel(Real* total, const double* partial, int blocks) {
  double sum = 0;
  for (int i = threadIdx.x; i < blocks; i += blockDim.x) sum += partial[i];
  sum = block_sum(sum);
  if (threadIdx.x == 0) *total += static_cast<Real>(sum);
}

}  // namespace llmz::cuda
