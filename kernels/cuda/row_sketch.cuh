#pragma once

// z = x·R by a sign projector's tables, for rows of x that lie in shared memory: by itself (projector.cu), or behind
// the op that has just written the rows (norm.cu, activation.cu).

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/twins.h"

namespace llmz::cuda {

constexpr size_t kSketchRowBytes = 32 * 1024;  // shared memory for rows that a block works on together
constexpr int kMostSketchRows = 8;

inline int rows_together(int64_t width) {
  const int64_t fit = static_cast<int64_t>(kSketchRowBytes / sizeof(float)) / width;
  return static_cast<int>(fit < 1 ? 1 : fit > kMostSketchRows ? kMostSketchRows : fit);
}

/// Both rows of signs [2,n] as one vector.
inline Operand flat(const Tensor& t) {
  Operand o = operand(t);
  o.outer = 1, o.stride0 = 0;
  return o;
}

/// A sketch as kernels take it; a block has `together` rows of x [rows,n].
struct RowSketch {
  Operand z;               // [rows, groups]
  const int32_t* feature;  // at each position
  Operand signs;           // of it
  int64_t rows, n, groups;
  int together;

  /// Rows of this block: [first(), first() + count()).
  __device__ int64_t first() const { return static_cast<int64_t>(blockIdx.x) * together; }
  __device__ int count() const { return static_cast<int>(rows - first() < together ? rows - first() : together); }

  /// z[t,g] = Σ sign·x over group g, positions g, g + r, g + 2r …: a thread sums a group for all rows of the block, so
  /// that the tables are read once for them. row [count,n] is complete: the block has passed a barrier since.
  __device__ void project(const float* row) const {
    const int many = count();
    for (int64_t g = threadIdx.x; g < groups; g += blockDim.x) {
      float sum[kMostSketchRows] = {};
      for (int64_t p = g; p < n; p += groups) {
        const int32_t i = feature[p];
        const float sign = signs.at(p);
#pragma unroll
        for (int k = 0; k < kMostSketchRows; ++k) {
          if (k < many) sum[k] += sign * row[k * n + i];
        }
      }
#pragma unroll
      for (int k = 0; k < kMostSketchRows; ++k) {
        if (k < many) z.put(z.offset(first() + k) + g, sum[k]);
      }
    }
  }

  unsigned blocks() const { return static_cast<unsigned>((rows + together - 1) / together); }
  size_t shared_bytes() const { return static_cast<size_t>(together * n) * sizeof(float); }
};

/// Of x [rows,n].
inline RowSketch row_sketch(const SketchEpilogue& s, const Tensor& x) {
  return {operand(s.z), s.index.as<int32_t>(), flat(s.signs), x.dim(0), x.dim(1), s.z.dim(1), rows_together(x.dim(1))};
}

/// A row in shared memory as an operand: what the op leaves there is what it stores, as it will be read.
__device__ inline Operand staged_row(float* row) {
  Operand o;
  o.data = row;
  return o;
}

}  // namespace llmz::cuda
