#pragma once

// The tensor core's product of bf16 matrices and what feeds it, one warp at a time. All lanes of a warp call these
// together. With lane l, g = l/4 and t = l%4, a warp holds (two bf16 a register, the lower column or row in its low
// half):
//   A [16 rows, 16 k]   a[0]: row g, k 2t 2t+1   a[1]: row g+8, same k   a[2], a[3]: the same rows, k + 8
//   B [16 k, 8 columns] b0: k 2t 2t+1, column g  b1: k + 8
//   C [16 rows, 8 columns] f32  c[0] c[1]: row g, columns 2t 2t+1        c[2] c[3]: row g+8

#include "kernels/cuda/device.cuh"

#ifdef LLMZ_CUDA_EMULATED
#include "mma_emulation.h"
#endif

namespace llmz::cuda {

/// C += A·B.
__device__ inline void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#ifdef LLMZ_CUDA_EMULATED
  cuda_emulation::multiply_add(c, a, b0, b1);
#else
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

/// C = A·B: no registers have to be set to zero first.
__device__ inline void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#ifdef LLMZ_CUDA_EMULATED
  c[0] = c[1] = c[2] = c[3] = 0.0f;
  cuda_emulation::multiply_add(c, a, b0, b1);
#else
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%10, %10, %10, %10};"
      : "=f"(c[0]), "=f"(c[1]), "=f"(c[2]), "=f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(0.0f));
#endif
}

#ifndef LLMZ_CUDA_EMULATED
__device__ inline uint32_t shared_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }
#endif

/// Four 8×8 matrices of bf16 from shared memory. Lane l gives the address of row l%8 of matrix l/8, 16 bytes, aligned.
/// It gets of each matrix the elements 2t, 2t+1 of row g: A's and C's layout.
__device__ inline void load_matrices(uint32_t (&x)[4], const uint16_t* row) {
#ifdef LLMZ_CUDA_EMULATED
  cuda_emulation::load_matrices(x, row, false);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
               : "r"(shared_address(row))
               : "memory");
#endif
}

/// The same matrices transposed: of each, the elements g of rows 2t and 2t+1.
__device__ inline void load_matrices_transposed(uint32_t (&x)[4], const uint16_t* row) {
#ifdef LLMZ_CUDA_EMULATED
  cuda_emulation::load_matrices(x, row, true);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
               : "r"(shared_address(row))
               : "memory");
#endif
}

/// Begins to copy kBytes (4 or 16, both sides aligned to that) to shared memory; zeros where `wanted` is false: then
/// nothing is read.
template <int kBytes>
__device__ inline void copy_async(void* shared, const void* global, bool wanted) {
#ifdef LLMZ_CUDA_EMULATED
  if (wanted) {
    std::memcpy(shared, global, kBytes);
  } else {
    std::memset(shared, 0, kBytes);
  }
#else
  const int bytes = wanted ? kBytes : 0;
  if constexpr (kBytes == 16) {  // past L1
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(bytes)
                 : "memory");
  } else {
    static_assert(kBytes == 4);
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(bytes)
                 : "memory");
  }
#endif
}

/// Waits until this thread's copies are there. Other threads see them after a barrier.
__device__ inline void wait_for_copies() {
#ifndef LLMZ_CUDA_EMULATED
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

/// Two numbers rounded to bf16 in one register.
__device__ inline uint32_t pack_bf16(float low, float high) {
#ifdef LLMZ_CUDA_EMULATED
  return float_to_bf16(low) | static_cast<uint32_t>(float_to_bf16(high)) << 16;
#else
  uint32_t x;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(x) : "f"(high), "f"(low));
  return x;
#endif
}

/// 2^x to some 2^-22 of itself; results below 2^-126 are zero.
__device__ inline float exp2_fast(float x) {
#ifdef LLMZ_CUDA_EMULATED
  return std::exp2(x);
#else
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}

}  // namespace llmz::cuda
