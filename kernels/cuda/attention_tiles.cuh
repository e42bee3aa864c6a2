#pragma once

// Pieces of the tensor-core kernels of attention. A block has four warps; each owns 16·M rows of a resident tile and
// goes through streamed tiles, of which the next is on its way while one is computed with. Rows in shared memory hold
// Width elements, the head's width rounded up to 16 and filled with zeros, and 8 more: 16-byte pieces of eight rows
// then lie in different banks, as their distance is an odd number of pieces.

#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/mma.cuh"

namespace llmz::cuda {

constexpr int kAttentionWarps = 4, kAttentionThreads = kAttentionWarps * kWarp;

template <int Width>
constexpr int kPitch = Width + 8;

/// Bytes of so many rows in shared memory.
template <int Width>
constexpr size_t tile_bytes(int rows) {
  return size_t{2} * rows * kPitch<Width>;
}

__device__ __forceinline__ int this_lane() { return static_cast<int>(threadIdx.x) % kWarp; }
__device__ __forceinline__ int this_warp() { return static_cast<int>(threadIdx.x) / kWarp; }

/// Begins to copy Rows rows from (b, h, first) on into a tile: zeros past `valid` rows and past `width`.
template <int Width, int Rows>
__device__ __forceinline__ void copy_rows(uint16_t* tile, const HeadRows& from, int b, int h, int first, int valid,
                                          int width) {
  constexpr int kPieces = Width / 8;
  const uint16_t* source = static_cast<const uint16_t*>(from.data) + from.offset(b, h, first);
  if constexpr (kAttentionThreads % kPieces == 0) {  // a thread keeps its column
    constexpr int kStep = kAttentionThreads / kPieces;
    static_assert(Rows % kStep == 0);
    const int row = static_cast<int>(threadIdx.x) / kPieces, column = static_cast<int>(threadIdx.x) % kPieces * 8;
    if (column >= width) valid = 0;
    tile += row * kPitch<Width> + column;
    source += row * from.token + column;
    const int64_t step = kStep * from.token;
#pragma unroll
    for (int r = 0; r < Rows; r += kStep, source += step) {
      copy_async<16>(tile + r * kPitch<Width>, source, row + r < valid);
    }
  } else {
#pragma unroll
    for (int i = 0; i < Rows * kPieces; i += kAttentionThreads) {
      const int at = i + static_cast<int>(threadIdx.x), row = at / kPieces, column = at % kPieces * 8;
      if (Rows * kPieces % kAttentionThreads != 0 && at >= Rows * kPieces) break;
      copy_async<16>(tile + row * kPitch<Width> + column, source + row * from.token + column,
                     row < valid && column < width);
    }
  }
}

/// c[16·M rows, N] = a·bᵀ over Width; a [16·M rows] and b [N rows] in shared memory.
template <int Width, int M, int N>
__device__ __forceinline__ void multiply_rows(float (&c)[M][N / 8][4], const uint16_t* a, const uint16_t* b) {
  const int lane = this_lane();
  a += lane % 16 * kPitch<Width> + lane / 16 * 8;
  b += (lane / 16 * 8 + lane % 8) * kPitch<Width> + lane / 8 % 2 * 8;
#pragma unroll
  for (int k = 0; k < Width; k += 16) {
    uint32_t of_a[M][4];
#pragma unroll
    for (int m = 0; m < M; ++m) load_matrices(of_a[m], a + 16 * m * kPitch<Width> + k);
#pragma unroll
    for (int n = 0; n < N / 16; ++n) {
      uint32_t of_b[4];
      load_matrices(of_b, b + 16 * n * kPitch<Width> + k);
#pragma unroll
      for (int m = 0; m < M; ++m) {
        if (k == 0) {
          multiply(c[m][2 * n], of_a[m], of_b[0], of_b[1]);
          multiply(c[m][2 * n + 1], of_a[m], of_b[2], of_b[3]);
        } else {
          multiply_add(c[m][2 * n], of_a[m], of_b[0], of_b[1]);
          multiply_add(c[m][2 * n + 1], of_a[m], of_b[2], of_b[3]);
        }
      }
    }
  }
}

/// c[16·M rows, Width] += p·b; p [16·M rows, N] in registers, b [N rows] in shared memory.
template <int Width, int M, int N>
__device__ __forceinline__ void multiply_columns(float (&c)[M][Width / 8][4], const uint32_t (&p)[M][N / 16][4],
                                                 const uint16_t* b) {
  const int lane = this_lane();
  b += lane % 16 * kPitch<Width> + lane / 16 * 8;
#pragma unroll
  for (int k = 0; k < N / 16; ++k) {
#pragma unroll
    for (int n = 0; n < Width / 16; ++n) {
      uint32_t of_b[4];
      load_matrices_transposed(of_b, b + 16 * k * kPitch<Width> + 16 * n);
#pragma unroll
      for (int m = 0; m < M; ++m) {
        multiply_add(c[m][2 * n], p[m][k], of_b[0], of_b[1]);
        multiply_add(c[m][2 * n + 1], p[m][k], of_b[2], of_b[3]);
      }
    }
  }
}

/// A product as the left factor of the next: layout C of two neighbouring column tiles is layout A.
template <int M, int N>
__device__ __forceinline__ void round_to_factor(uint32_t (&a)[M][N / 16][4], const float (&c)[M][N / 8][4]) {
#pragma unroll
  for (int m = 0; m < M; ++m) {
#pragma unroll
    for (int k = 0; k < N / 16; ++k) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float(&from)[4] = c[m][2 * k + i / 2];
        a[m][k][i] = pack_bf16(from[i % 2 * 2], from[i % 2 * 2 + 1]);
      }
    }
  }
}

/// f(m, n, i, row, column) for each element c[m][n][i] of this lane, row and column counted within the warp's tile.
template <int M, int N, class F>
__device__ __forceinline__ void each_element(F&& f) {
  const int g = this_lane() / 4, t = this_lane() % 4;
#pragma unroll
  for (int m = 0; m < M; ++m) {
#pragma unroll
    for (int n = 0; n < N / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) f(m, n, i, 16 * m + i / 2 * 8 + g, 8 * n + 2 * t + i % 2);
    }
  }
}

template <int M, int N>
__device__ __forceinline__ void clear(float (&c)[M][N][4]) {
#pragma unroll
  for (int m = 0; m < M; ++m) {
#pragma unroll
    for (int n = 0; n < N; ++n) c[m][n][0] = c[m][n][1] = c[m][n][2] = c[m][n][3] = 0.0f;
  }
}

/// The warp's rows, each times its factor, to (b, h, first) on: by way of `staging`, 16·M rows of a tile that no other
/// warp reads, so that they leave 16 bytes at a time.
template <int Width, int M>
__device__ __forceinline__ void store_rows(const HeadRows& to, int b, int h, int first, int valid, int width,
                                           uint16_t* staging, const float (&c)[M][Width / 8][4],
                                           const float (&factor)[M][2]) {
  constexpr int kPieces = Width / 8;
  const int g = this_lane() / 4, t = this_lane() % 4;
  __syncwarp();
#pragma unroll
  for (int m = 0; m < M; ++m) {
#pragma unroll
    for (int n = 0; n < Width / 8; ++n) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const uint32_t pair = pack_bf16(c[m][n][2 * half] * factor[m][half], c[m][n][2 * half + 1] * factor[m][half]);
        *reinterpret_cast<uint32_t*>(staging + (16 * m + 8 * half + g) * kPitch<Width> + 8 * n + 2 * t) = pair;
      }
    }
  }
  __syncwarp();
  uint16_t* const target = static_cast<uint16_t*>(to.data) + to.offset(b, h, first);
  for (int i = this_lane(); i < 16 * M * kPieces; i += kWarp) {
    const int row = i / kPieces, column = i % kPieces * 8;
    if (row >= valid || column >= width) continue;
    *reinterpret_cast<uint4*>(target + row * to.token + column) =
        *reinterpret_cast<const uint4*>(staging + row * kPitch<Width> + column);
  }
}

/// f(std::integral_constant of the padded width) for a head's width.
template <class F>
void with_padded_width(int width, F&& f) {
  switch ((width + 15) / 16) {
    case 1: return f(std::integral_constant<int, 16>());
    case 2: return f(std::integral_constant<int, 32>());
    case 3: return f(std::integral_constant<int, 48>());
    case 4: return f(std::integral_constant<int, 64>());
    case 5: return f(std::integral_constant<int, 80>());
    case 6: return f(std::integral_constant<int, 96>());
    default: return f(std::integral_constant<int, 128>());
  }
}

}  // namespace llmz::cuda
