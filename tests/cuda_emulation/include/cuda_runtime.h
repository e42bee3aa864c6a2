#pragma once

// CUDA C++ as far as llmz's kernels use it, for a C++ compiler. See ../README.md.

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

#include "cuda_runtime_api.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;
constexpr int warpSize = 32;

namespace cuda_emulation {

/// Runs, or notes while the stream is being captured, a kernel: `thread` is called once for each thread.
void launch(cudaStream_t stream, const char* name, dim3 grid, dim3 block, size_t shared_bytes,
            std::function<void()> thread);
/// Runs, or notes, work of a library.
void submit(cudaStream_t stream, std::function<void()> work);

void* dynamic_shared();
void block_barrier();
/// Waits for the lanes of `mask` in the calling thread's warp.
void warp_barrier(unsigned mask);
/// Gives `bytes` (at most 64) to the warp and returns where the words of all lanes stand, 64 bytes a lane.
const unsigned char* exchange(unsigned mask, const void* value, size_t bytes);
int lane();

template <class T>
T shuffle(unsigned mask, T value, int from) {
  T result;
  std::memcpy(&result, exchange(mask, &value, sizeof(T)) + 64 * from, sizeof(T));
  return result;
}

}  // namespace cuda_emulation

inline void __syncthreads() { cuda_emulation::block_barrier(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { cuda_emulation::warp_barrier(mask); }
template <class T>
T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
  return cuda_emulation::shuffle(mask, value, (cuda_emulation::lane() / width) * width + (from & (width - 1)));
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int with) {
  return cuda_emulation::shuffle(mask, value, cuda_emulation::lane() ^ with);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  const unsigned char* words = cuda_emulation::exchange(mask, &predicate, sizeof(int));
  unsigned bits = 0;
  for (int i = 0; i < 32; ++i) {
    int p = 0;
    std::memcpy(&p, words + 64 * i, sizeof(int));
    if ((mask >> i & 1u) != 0 && p != 0) bits |= 1u << i;
  }
  return bits;
}

inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline void sincospif(float x, float* s, float* c) {
  const double angle = static_cast<double>(x) * 3.14159265358979323846;
  *s = static_cast<float>(std::sin(angle)), *c = static_cast<float>(std::cos(angle));
}
template <class T>
T atomicAdd(T* p, T value) {
  const T old = *p;
  *p = old + value;
  return old;
}
template <class T>
T atomicMax(T* p, T value) {
  const T old = *p;
  *p = old > value ? old : value;
  return old;
}
