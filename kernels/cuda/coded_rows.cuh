#pragma once

// The rows of codes of ops/quant.h, and a lane's quads of four of them.

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/hadamard.cuh"
#include "llmz/ops/quant.h"

namespace llmz::cuda {

constexpr int kNoShift = -1;

/// A format and the tensors that it is between.
struct CodedRows {
  Operand x;
  uint8_t* codes;
  uint16_t* scales;
  int64_t code_stride, scale_stride, rows;
  int width, rotate, bits;
  unsigned group;
  int groups, shift;  ///< shift: log2(group), or kNoShift where a group may end inside a quad
  bool x_by_fours, codes_by_fours;

  __device__ float half() const { return bits == 8 ? 128.0f : 8.0f; }
  __device__ int group_of(int column) const {
    return static_cast<int>(shift >= 0 ? static_cast<unsigned>(column) >> shift
                                       : static_cast<unsigned>(column) / group);
  }
  __device__ int chunk_size(int first) const { return min(kWarpChunk, width - first); }
  __device__ int64_t x_row(int64_t row) const { return row * x.stride0; }  // x is a matrix
  __device__ uint8_t* code_row(int64_t row) const { return codes + row * code_stride; }
  __device__ uint16_t* scale_row(int64_t row) const { return scales + row * scale_stride; }
};

inline CodedRows coded_rows(const Tensor& codes, const Tensor& scales, const Tensor& x, const ops::QuantFormat& f) {
  CodedRows p{};
  p.x = operand(x);
  p.codes = codes.as<uint8_t>(), p.scales = static_cast<uint16_t*>(scales.data);
  p.code_stride = codes.stride(0), p.scale_stride = scales.stride(0);
  p.rows = x.dim(0), p.width = static_cast<int>(x.dim(1));
  p.rotate = static_cast<int>(f.rotate), p.bits = f.bits;
  p.groups = static_cast<int>(f.groups(p.width));
  p.group = static_cast<unsigned>(p.groups == 1 ? p.width : f.group);
  p.shift = kNoShift;
  if (p.groups == 1) {
    p.shift = p.width <= kWarpChunk ? 10 : 30;  // as if it were that long
  } else if ((p.group & (p.group - 1)) == 0 && p.group >= 4) {
    p.shift = 2;
    while (1u << p.shift < p.group) ++p.shift;
  }
  const int64_t quad_bytes = f.bits / 2;
  p.x_by_fours = by(4, x);
  p.codes_by_fours = p.width % 4 == 0 && p.code_stride % quad_bytes == 0 &&
                     reinterpret_cast<uintptr_t>(p.codes) % static_cast<uintptr_t>(quad_bytes) == 0;
  return p;
}

__device__ inline void store_codes(const CodedRows& p, uint8_t* row, int column, const uint32_t (&q)[4]) {
  const int left = p.width - column;
  if (p.bits == 8) {
    if (p.codes_by_fours) {
      *reinterpret_cast<uint32_t*>(row + column) = q[0] | q[1] << 8 | q[2] << 16 | q[3] << 24;
      return;
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if (k < left) row[column + k] = static_cast<uint8_t>(q[k]);
    }
  } else {
    const uint32_t low = q[0] | q[1] << 4, high = q[2] | q[3] << 4;
    if (p.codes_by_fours) {
      *reinterpret_cast<uint16_t*>(row + column / 2) = static_cast<uint16_t>(low | high << 8);
      return;
    }
    row[column / 2] = static_cast<uint8_t>(low);
    if (left > 2) row[column / 2 + 1] = static_cast<uint8_t>(high);
  }
}

/// Codes of a quad, zeros behind the row's end.
__device__ inline void load_codes(uint32_t (&q)[4], const CodedRows& p, const uint8_t* row, int column) {
  const int left = p.width - column;
  if (p.bits == 8) {
    uint32_t word = 0;
    if (p.codes_by_fours) {
      word = *reinterpret_cast<const uint32_t*>(row + column);
    } else {
#pragma unroll
      for (int k = 0; k < 4; ++k) word |= (k < left ? static_cast<uint32_t>(row[column + k]) : 0u) << (8 * k);
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) q[k] = word >> (8 * k) & 255;
  } else {
    uint32_t word = 0;
    if (p.codes_by_fours) {
      word = *reinterpret_cast<const uint16_t*>(row + column / 2);
    } else {
      word = row[column / 2] | (left > 2 ? static_cast<uint32_t>(row[column / 2 + 1]) : 0u) << 8;
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) q[k] = word >> (4 * k) & 15;
  }
}

}  // namespace llmz::cuda
