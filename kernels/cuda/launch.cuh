#pragma once

#include <cuda_runtime.h>

#include "llmz/core/gpu.h"

namespace llmz::cuda {

// Dynamic shared memory that a block may have without asking: 48 KiB less what kernels declare statically.
constexpr size_t kPlainShared = 44 * 1024;

/// Launches `kernel` on the GPU's stream and checks that it was taken. `name` is for messages. A grid without blocks is
/// no work.
template <class... Parameters, class... Arguments>
void launch(Gpu& gpu, const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
            Arguments... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return;
#ifdef LLMZ_CUDA_EMULATED
  cuda_emulation::launch(gpu.stream(), name, grid, block, shared_bytes, [=] { kernel(arguments...); });
#else
  if (shared_bytes > kPlainShared) {
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
  }
  const auto with_types = [&](Parameters... parameters) {  // the arguments as the kernel wants them
    void* pointers[] = {&parameters...};
    cudaLaunchKernel(reinterpret_cast<const void*>(kernel), grid, block, pointers, shared_bytes, gpu.stream());
  };
  with_types(arguments...);
#endif
  gpu.check_launch(name);
}

/// The block's dynamic shared memory, 16-byte aligned.
template <class T>
__device__ T* dynamic_shared() {
#ifdef LLMZ_CUDA_EMULATED
  return static_cast<T*>(cuda_emulation::dynamic_shared());
#else
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  return reinterpret_cast<T*>(shared_bytes);
#endif
}

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline unsigned blocks_for(int64_t work, int64_t each) { return static_cast<unsigned>(ceil_div(work, each)); }

}  // namespace llmz::cuda
