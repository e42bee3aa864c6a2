#pragma once

// Tensors as the row kernels see them. A kernel is compiled once for every mixture of f32 and bf16: an operand knows
// its type, and the branch on it is the same for all threads.

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "llmz/core/tensor.h"

namespace llmz::cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

__device__ inline float bf16_to_float(uint16_t bits) { return __uint_as_float(static_cast<uint32_t>(bits) << 16); }
/// To nearest, ties to even.
__device__ inline uint16_t float_to_bf16(float x) { return __bfloat16_as_ushort(__float2bfloat16_rn(x)); }

/// Element i of bf16 (`half`) or f32 memory.
__device__ inline float load_one(const void* data, bool half, int64_t i) {
  return half ? bf16_to_float(static_cast<const uint16_t*>(data)[i]) : static_cast<const float*>(data)[i];
}
__device__ inline void store_one(void* data, bool half, int64_t i, float x) {
  if (half) {
    static_cast<uint16_t*>(data)[i] = float_to_bf16(x);
  } else {
    static_cast<float*>(data)[i] = x;
  }
}

/// N numbers side by side.
template <int N>
struct Pack {
  float v[N];
  __device__ float& operator[](int i) { return v[i]; }
  __device__ float operator[](int i) const { return v[i]; }
};

/// A tensor with dense rows; rows are counted over all but the last dimension. Absent: data is null.
struct Operand {
  void* data = nullptr;
  bool half = false;  ///< bf16, else f32
  int outer = 1;      ///< outer dimensions that are left after merging: at most 3
  // Of the outer dimensions, innermost first; strides in elements. Named, not an array: an index that is not known to
  // the compiler would put the operand into local memory.
  int64_t dim0 = 1, dim1 = 1, stride0 = 0, stride1 = 0, stride2 = 0;

  __device__ bool present() const { return data != nullptr; }
  __device__ int64_t offset(int64_t row) const {
    if (outer == 1) return row * stride0;
    const int64_t row1 = row / dim0;
    const int64_t at = (row - row1 * dim0) * stride0;
    if (outer == 2) return at + row1 * stride1;
    const int64_t row2 = row1 / dim1;
    return at + (row1 - row2 * dim1) * stride1 + row2 * stride2;
  }

  /// N elements from (row offset, column) on; for N > 1 aligned to N elements.
  template <int N>
  __device__ Pack<N> load(int64_t row_offset, int64_t column) const {
    Pack<N> x;
    const int64_t i = row_offset + column;
    if (half) {
      const auto* p = static_cast<const uint16_t*>(data) + i;
      if constexpr (N == 4) {
        const uint2 w = *reinterpret_cast<const uint2*>(p);
        x[0] = __uint_as_float(w.x << 16), x[1] = __uint_as_float(w.x & 0xffff0000u);
        x[2] = __uint_as_float(w.y << 16), x[3] = __uint_as_float(w.y & 0xffff0000u);
      } else if constexpr (N == 2) {
        const uint32_t w = *reinterpret_cast<const uint32_t*>(p);
        x[0] = __uint_as_float(w << 16), x[1] = __uint_as_float(w & 0xffff0000u);
      } else {
#pragma unroll
        for (int k = 0; k < N; ++k) x[k] = bf16_to_float(p[k]);
      }
    } else {
      const auto* p = static_cast<const float*>(data) + i;
      if constexpr (N == 4) {
        const float4 w = *reinterpret_cast<const float4*>(p);
        x[0] = w.x, x[1] = w.y, x[2] = w.z, x[3] = w.w;
      } else if constexpr (N == 2) {
        const float2 w = *reinterpret_cast<const float2*>(p);
        x[0] = w.x, x[1] = w.y;
      } else {
#pragma unroll
        for (int k = 0; k < N; ++k) x[k] = p[k];
      }
    }
    return x;
  }
  template <int N>
  __device__ void store(int64_t row_offset, int64_t column, const Pack<N>& x) const {
    const int64_t i = row_offset + column;
    if (half) {
      auto* p = static_cast<uint16_t*>(data) + i;
      if constexpr (N == 4) {
        uint2 w;
        w.x = float_to_bf16(x[0]) | static_cast<uint32_t>(float_to_bf16(x[1])) << 16;
        w.y = float_to_bf16(x[2]) | static_cast<uint32_t>(float_to_bf16(x[3])) << 16;
        *reinterpret_cast<uint2*>(p) = w;
      } else if constexpr (N == 2) {
        *reinterpret_cast<uint32_t*>(p) = float_to_bf16(x[0]) | static_cast<uint32_t>(float_to_bf16(x[1])) << 16;
      } else {
#pragma unroll
        for (int k = 0; k < N; ++k) p[k] = float_to_bf16(x[k]);
      }
    } else {
      auto* p = static_cast<float*>(data) + i;
      if constexpr (N == 4) {
        *reinterpret_cast<float4*>(p) = make_float4(x[0], x[1], x[2], x[3]);
      } else if constexpr (N == 2) {
        *reinterpret_cast<float2*>(p) = make_float2(x[0], x[1]);
      } else {
#pragma unroll
        for (int k = 0; k < N; ++k) p[k] = x[k];
      }
    }
  }
  __device__ float at(int64_t i) const { return load_one(data, half, i); }
  __device__ void put(int64_t i, float x) const { store_one(data, half, i, x); }
  /// What `put` stores and `at` then reads.
  __device__ float rounded(float x) const { return half ? bf16_to_float(float_to_bf16(x)) : x; }
};

inline Operand operand(const Tensor& t) {
  Operand o;
  if (!t.present()) return o;
  o.data = t.data;
  o.half = t.dtype == DType::bf16;
  int64_t dims[3] = {1, 1, 1}, strides[3] = {};
  int outer = 0;
  for (int i = t.rank() - 2; i >= 0; --i) {
    if (outer > 0 && t.stride(i) == dims[outer - 1] * strides[outer - 1]) {
      dims[outer - 1] *= t.dim(i);  // these two follow one another without a gap
    } else {
      dims[outer] = t.dim(i);
      strides[outer++] = t.stride(i);
    }
  }
  o.outer = outer == 0 ? 1 : outer;  // a vector: one row
  o.dim0 = dims[0], o.dim1 = dims[1];
  o.stride0 = strides[0], o.stride1 = strides[1], o.stride2 = strides[2];
  return o;
}

/// Whether rows can be read `n` elements at a time.
inline bool by(int n, const Tensor& t) {
  if (!t.present()) return true;
  bool fits = t.dim(t.rank() - 1) % n == 0 && reinterpret_cast<uintptr_t>(t.data) % (n * dtype_bytes(t.dtype)) == 0;
  for (int i = 0; i < t.rank() - 1; ++i) fits = fits && t.stride(i) % n == 0;
  return fits;
}
template <class... Tensors>
bool all_by_fours(const Tensors&... tensors) {
  return (by(4, tensors) && ...);
}

/// Rows over all but the last dimension, and their width.
inline int64_t row_count(const Tensor& t) {
  int64_t rows = 1;
  for (int i = 0; i + 1 < t.rank(); ++i) rows *= t.dim(i);
  return rows;
}
inline int64_t row_width(const Tensor& t) { return t.dim(t.rank() - 1); }

__device__ inline float warp_sum(float x) {
  for (int step = kWarp / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}
__device__ inline double warp_sum(double x) {
  for (int step = kWarp / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAllLanes, x, step);
  return x;
}
__device__ inline float warp_max(float x) {
  for (int step = kWarp / 2; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, step));
  return x;
}

/// Sum over the block, on every thread; the order of additions is fixed by the block's size. May be called
/// again at once: the first barrier of the next call protects what was read.
template <class Real>
__device__ Real block_sum(Real x) {
  __shared__ Real parts[kWarp];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = (blockDim.x + kWarp - 1) / kWarp;
  x = warp_sum(x);
  if (warps == 1) return x;
  __syncthreads();
  if (lane == 0) parts[warp] = x;
  __syncthreads();
  x = lane < warps ? parts[lane] : Real(0);
  return warp_sum(x);
}

__device__ inline float block_max(float x) {
  __shared__ float parts[kWarp];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = (blockDim.x + kWarp - 1) / kWarp;
  x = warp_max(x);
  if (warps == 1) return x;
  __syncthreads();
  if (lane == 0) parts[warp] = x;
  __syncthreads();
  x = lane < warps ? parts[lane] : -INFINITY;
  return warp_max(x);
}

/// How an elementwise kernel walks tensors of one shape: as one long row where all are contiguous, else row by row.
struct Walk {
  int64_t rows, width;

  /// Calls f(row, column) for packs of N elements, a grid's stride at a time.
  template <int N, class F>
  __device__ void each(F&& f) const {
    const int64_t packs = width / N, all = rows * packs, step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t p = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; p < all; p += step) {
      const int64_t row = rows == 1 ? 0 : p / packs;
      f(row, (p - row * packs) * N);
    }
  }
  /// Blocks of `threads` threads that give every thread a pack, up to `most`.
  unsigned blocks(int n, int threads, int64_t most) const {
    const int64_t wanted = (rows * (width / n) + threads - 1) / threads;
    return static_cast<unsigned>(wanted < most ? wanted : most);
  }
};
template <class... Tensors>
Walk walk(const Tensor& first, const Tensors&... others) {
  const bool flat = first.contiguous() && (others.contiguous() && ...);
  return flat ? Walk{1, first.numel()} : Walk{row_count(first), row_width(first)};
}
/// Whether `walk` can take fours: flat tensors need only their addresses aligned and a fitting number of elements.
template <class... Tensors>
bool walk_by_fours(const Tensor& first, const Tensors&... others) {
  const auto flat_by_fours = [](const Tensor& t) {
    return t.numel() % 4 == 0 && reinterpret_cast<uintptr_t>(t.data) % (4 * dtype_bytes(t.dtype)) == 0;
  };
  if (walk(first, others...).rows == 1 && first.contiguous() && (others.contiguous() && ...)) {
    return flat_by_fours(first) && (flat_by_fours(others) && ...);
  }
  return all_by_fours(first, others...);
}

constexpr int kThreads = 256;                // of an elementwise kernel's block
constexpr int64_t kMostBlocks = 1 << 14;     // of its grid
constexpr int64_t kMostRowBlocks = 1 << 20;  // of a kernel with a block for each row

inline unsigned row_blocks(int64_t rows) {
  return static_cast<unsigned>(rows < kMostRowBlocks ? rows : kMostRowBlocks);
}

/// Threads for a block that works on rows of `width` elements, `each` at a time.
inline int threads_for_row(int64_t width, int each) {
  const int64_t wanted = (width / each + kWarp - 1) / kWarp * kWarp;
  return static_cast<int>(wanted < kWarp ? kWarp : wanted > 256 ? 256 : wanted);
}

}  // namespace llmz::cuda
