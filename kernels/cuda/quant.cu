#include "kernels/cuda/coded_rows.cuh"
#include "kernels/cuda/hadamard.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/twins.h"

// A warp works on 1024 elements of a row in registers, a quad of four a lane: one load, one store of codes, one Philox
// block of draws each. What counts is memory: quantize reads 2 or 4 bytes an element and writes ½ or 1, dequantize the
// reverse; the rotation stays in registers.

namespace llmz::cuda {
namespace {

constexpr int kMostWarps = 16;  // of a row; longer rows are taken in turns
constexpr int kBlockWarps = 8;  // of a block, where rows are so short that it takes several

struct Streams {
  DeviceStream signs, rounding;
};

/// Elements first … first + 1023 of a row, zeros behind its end.
__device__ void load_chunk(WarpChunk& c, const CodedRows& p, int64_t row, int first) {
  const int64_t offset = p.x_row(row);
#pragma unroll
  for (int j = 0; j < kQuads; ++j) {
    const int column = first + quad_place(j);
#pragma unroll
    for (int k = 0; k < 4; ++k) c.v[j][k] = 0;
    if (p.x_by_fours) {
      if (column < p.width) {
        const Pack<4> quad = p.x.load<4>(offset, column);
#pragma unroll
        for (int k = 0; k < 4; ++k) c.v[j][k] = quad[k];
      }
    } else {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        if (column + k < p.width) c.v[j][k] = p.x.at(offset + column + k);
      }
    }
  }
}

/// The signs of a warp's chunk, made again only where the chunk is another one than before: signs are the same for all
/// rows.
struct ChunkSigns {
  int first = -1;
  uint32_t negative = 0;
  __device__ void move_to(const DeviceStream& signs, int chunk_first) {
    if (first == chunk_first) return;
    first = chunk_first;
    negative = negative_columns(signs, first);
  }
};

template <bool kRotate>
__device__ void read_chunk(WarpChunk& c, ChunkSigns& columns, const CodedRows& p, const DeviceStream& signs,
                           int64_t row, int first) {
  load_chunk(c, p, row, first);
  if constexpr (kRotate) {
    columns.move_to(signs, first);
    flip_signs(c, columns.negative);
    hadamard(c, p.chunk_size(first), p.rotate);
  }
}

/// As whole numbers, magnitudes' bits are in order: NaN above infinity above all numbers.
__device__ int magnitude(float x) { return static_cast<int>(__float_as_uint(x) & 0x7fffffffu); }
__device__ int quad_magnitude(const float (&x)[4]) {
  return max(max(magnitude(x[0]), magnitude(x[1])), max(magnitude(x[2]), magnitude(x[3])));
}

/// largest/top, rounded up to bf16. Not below 2^-126, so that its reciprocal is a number too.
__device__ uint16_t make_scale(int largest_bits, float half) {
  constexpr float kSmallest = 1.17549435e-38f;
  const float largest = __uint_as_float(static_cast<uint32_t>(largest_bits));
  float s = largest / (half - 0.5f);
  s = s < kSmallest && largest > 0 ? kSmallest : s;
  const uint32_t u = __float_as_uint(s);
  return static_cast<uint16_t>(u > 0x7f800000u ? 0x7fc0u : (u + 0xffffu) >> 16);
}
__device__ float inverse_of(uint16_t scale) {
  const float s = bf16_to_float(scale);
  return s == 0 ? 0.0f : 1.0f / s;
}

/// ⌊x/s + half⌋ within 0 … 2·half − 1: the nearest level. NaN becomes 0. Fused, as compilers do it for the CPU.
__device__ uint32_t nearest(float x, float inverse, float half) {
  const float last = 2 * half - 0.5f;
  float u = fmaf(x, inverse, half);
  u = u > 0 ? u : 0.0f;
  u = u < last ? u : last;
  return static_cast<uint32_t>(static_cast<int>(u));
}

/// ⌊u + U⌋ with u = x/s + half − ½ within 0 … 2·half − 1 and U uniform in [0, 1), both with 22 bits after the point.
__device__ uint32_t stochastic(float x, float inverse, float half, uint32_t random) {
  constexpr int kFraction = 22;
  const float last = 2 * half - 1;
  float u = fmaf(x, inverse, half - 0.5f);
  u = u > 0 ? u : 0.0f;
  u = u < last ? u : last;
  const int sum = static_cast<int>(u * (1 << kFraction)) + static_cast<int>(random >> (32 - kFraction));
  return static_cast<uint32_t>(sum >> kFraction);
}

/// Numbers first … first + 3 of a stream.
__device__ uint4 draws(const DeviceStream& s, uint64_t first) {
  const uint4 a = s.block(first / 4);
  if (first % 4 == 0) return a;
  const uint4 b = s.block(first / 4 + 1);
  switch (first % 4) {
    case 1: return make_uint4(a.y, a.z, a.w, b.x);
    case 2: return make_uint4(a.z, a.w, b.x, b.y);
    default: return make_uint4(a.w, b.x, b.y, b.z);
  }
}

/// Codes of the chunk; inverse_at(j, k) is 1/s of an element.
template <bool kStochastic, class InverseAt>
__device__ void write_codes(const CodedRows& p, const DeviceStream& rounding, int64_t row, int first,
                            const WarpChunk& c, InverseAt&& inverse_at) {
  const float half = p.half();
#pragma unroll
  for (int j = 0; j < kQuads; ++j) {
    const int column = first + quad_place(j);
    if (column >= p.width) continue;
    uint4 random{};
    if constexpr (kStochastic) random = draws(rounding, static_cast<uint64_t>(row * p.width + column));
    const uint32_t bits[4] = {random.x, random.y, random.z, random.w};
    uint32_t q[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const float inverse = inverse_at(j, k);
      q[k] = kStochastic ? stochastic(c.v[j][k], inverse, half, bits[k]) : nearest(c.v[j][k], inverse, half);
      q[k] = column + k < p.width ? q[k] : 0;  // the odd half byte
    }
    store_codes(p, p.code_row(row), column, q);
  }
}

/// Makes m[j] the largest of its group, for groups of 4·2^a elements up to a chunk.
__device__ void group_maxima(int (&m)[kQuads], int group) {
#pragma unroll
  for (int bit = 0; bit < 3; ++bit) {
    const int d = 1 << bit;
    if (group > 4 * kWarp * d) {
#pragma unroll
      for (int j = 0; j < kQuads; ++j) {
        if ((j & d) == 0) m[j] = m[(j + d) % kQuads] = max(m[j], m[(j + d) % kQuads]);
      }
    }
  }
#pragma unroll 1
  for (int step = 1; step < kWarp && 4 * step < group; step *= 2) {
#pragma unroll
    for (int j = 0; j < kQuads; ++j) m[j] = max(m[j], __shfl_xor_sync(kAllLanes, m[j], step));
  }
}

/// Groups that lie in one warp's chunk: no word passes between warps. Block (32·warps of a row, rows).
template <bool kRotate, bool kStochastic>
__global__ void __launch_bounds__(kMostWarps* kWarp) quantize_in_warps_kernel(CodedRows p, Streams streams) {
  const int warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  ChunkSigns columns;
  for (int64_t row = blockIdx.x * blockDim.y + threadIdx.y; row < p.rows; row += gridDim.x * blockDim.y) {
    for (int first = warp * kWarpChunk; first < p.width; first += warps * kWarpChunk) {
      WarpChunk c;
      read_chunk<kRotate>(c, columns, p, streams.signs, row, first);
      int m[kQuads];
#pragma unroll
      for (int j = 0; j < kQuads; ++j) m[j] = quad_magnitude(c.v[j]);
      group_maxima(m, 1 << p.shift);
      float inverse[kQuads];
#pragma unroll
      for (int j = 0; j < kQuads; ++j) {
        const int column = first + quad_place(j);
        const uint16_t scale = make_scale(m[j], p.half());
        inverse[j] = inverse_of(scale);
        const bool begins = (column & ((1 << p.shift) - 1)) == 0;
        if (begins && column < p.width) p.scale_row(row)[p.group_of(column)] = scale;
      }
      write_codes<kStochastic>(p, streams.rounding, row, first, c, [&](int j, int) { return inverse[j]; });
    }
  }
}

/// Puts the chunk's magnitudes into the row's largest [groups]. The order of maxima does not matter.
__device__ void collect_maxima(int* largest, const CodedRows& p, int first, const WarpChunk& c) {
  int m[kQuads];
#pragma unroll
  for (int j = 0; j < kQuads; ++j) m[j] = quad_magnitude(c.v[j]);
  if ((1 << p.shift) >= kWarpChunk && p.shift >= 0) {  // one group
    group_maxima(m, kWarpChunk);
    if (threadIdx.x % kWarp == 0) atomicMax(largest + p.group_of(first), m[0]);
    return;
  }
#pragma unroll
  for (int j = 0; j < kQuads; ++j) {
    const int column = first + quad_place(j);
    if (column >= p.width) continue;
    const int g = p.group_of(column);
    if (p.group_of(min(column + 3, p.width - 1)) == g) {
      atomicMax(largest + g, m[j]);
      continue;
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if (column + k < p.width) atomicMax(largest + p.group_of(column + k), magnitude(c.v[j][k]));
    }
  }
}

/// Any groups, up to as many a row as shared memory holds (58,000 on an H100). Shared: [rows of a block, groups] the
/// largest magnitudes, then 1/s.
template <bool kRotate, bool kStochastic>
__global__ void __launch_bounds__(kMostWarps* kWarp) quantize_in_block_kernel(CodedRows p, Streams streams) {
  const int warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  int* const largest = dynamic_shared<int>() + threadIdx.y * p.groups;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.y;
  const bool once = p.width <= warps * kWarpChunk;  // the chunk is still in registers when its scale is known
  ChunkSigns columns;
  for (int64_t begin = blockIdx.x * blockDim.y; begin < p.rows; begin += step) {
    const int64_t row = begin + threadIdx.y;
    const int width = row < p.rows ? p.width : 0;
    for (int g = threadIdx.x; g < p.groups; g += blockDim.x) largest[g] = 0;
    __syncthreads();
    WarpChunk c;
    for (int first = warp * kWarpChunk; first < width; first += warps * kWarpChunk) {
      read_chunk<kRotate>(c, columns, p, streams.signs, row, first);
      collect_maxima(largest, p, first, c);
    }
    __syncthreads();
    for (int g = threadIdx.x; g < p.groups && width > 0; g += blockDim.x) {
      const uint16_t scale = make_scale(largest[g], p.half());
      p.scale_row(row)[g] = scale;
      largest[g] = static_cast<int>(__float_as_uint(inverse_of(scale)));
    }
    __syncthreads();
    for (int first = warp * kWarpChunk; first < width; first += warps * kWarpChunk) {
      if (!once) read_chunk<kRotate>(c, columns, p, streams.signs, row, first);
      write_codes<kStochastic>(p, streams.rounding, row, first, c, [&](int j, int k) {
        return __uint_as_float(static_cast<uint32_t>(largest[p.group_of(min(first + quad_place(j) + k, p.width - 1))]));
      });
    }
    __syncthreads();
  }
}

__device__ void decode_quad(float (&v)[4], const CodedRows& p, int64_t row, int column) {
  const uint16_t* const scales = p.scale_row(row);
  uint32_t q[4];
  load_codes(q, p, p.code_row(row), column);
  float s = bf16_to_float(scales[p.group_of(column)]);
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    if (p.shift < 0 && column + k < p.width) s = bf16_to_float(scales[p.group_of(column + k)]);
    // Not to be fused with an addition of the rotation: the CPU does not either.
    v[k] = __fmul_rn(s, static_cast<float>(static_cast<int>(q[k])) - (p.half() - 0.5f));
  }
}

__device__ void store_quad(const CodedRows& p, int64_t offset, int column, const float (&v)[4]) {
  if (p.x_by_fours) return p.x.store<4>(offset, column, {v[0], v[1], v[2], v[3]});
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    if (column + k < p.width) p.x.put(offset + column + k, v[k]);
  }
}

/// Block (32·warps of a row, rows).
__global__ void __launch_bounds__(kMostWarps* kWarp, 2) dequantize_kernel(CodedRows p) {
  const int warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  for (int64_t row = blockIdx.x * blockDim.y + threadIdx.y; row < p.rows; row += gridDim.x * blockDim.y) {
    const int64_t offset = p.x_row(row);
    for (int first = warp * kWarpChunk; first < p.width; first += warps * kWarpChunk) {
#pragma unroll 4
      for (int j = 0; j < kQuads; ++j) {
        const int column = first + quad_place(j);
        if (column >= p.width) break;
        float v[4];
        decode_quad(v, p, row, column);
        store_quad(p, offset, column, v);
      }
    }
  }
}

/// Likewise, and the rotation undone.
__global__ void __launch_bounds__(kMostWarps* kWarp) dequantize_rotated_kernel(CodedRows p, DeviceStream signs) {
  const int warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  ChunkSigns columns;
  for (int64_t row = blockIdx.x * blockDim.y + threadIdx.y; row < p.rows; row += gridDim.x * blockDim.y) {
    const int64_t offset = p.x_row(row);
    for (int first = warp * kWarpChunk; first < p.width; first += warps * kWarpChunk) {
      WarpChunk c;
#pragma unroll
      for (int j = 0; j < kQuads; ++j) {
#pragma unroll
        for (int k = 0; k < 4; ++k) c.v[j][k] = 0;
        if (first + quad_place(j) < p.width) decode_quad(c.v[j], p, row, first + quad_place(j));
      }
      hadamard(c, p.chunk_size(first), p.rotate);
      columns.move_to(signs, first);
      flip_signs(c, columns.negative);
#pragma unroll
      for (int j = 0; j < kQuads; ++j) {
        if (first + quad_place(j) < p.width) store_quad(p, offset, first + quad_place(j), c.v[j]);
      }
    }
  }
}

struct Launch {
  dim3 grid, block;
};
Launch launch_for(const Gpu& gpu, const CodedRows& p, int most_rows) {
  const int chunks = static_cast<int>(ceil_div(p.width, kWarpChunk)), warps = chunks < kMostWarps ? chunks : kMostWarps;
  int rows = kBlockWarps / warps;
  rows = rows > most_rows ? most_rows : rows;
  rows = rows < 1 ? 1 : rows;
  // So many blocks that the GPU is full, and each keeps its columns' signs over some rows.
  const int64_t blocks = ceil_div(p.rows, rows), most = int64_t{16} * gpu.multiprocessors();
  return {dim3(static_cast<unsigned>(blocks < most ? blocks : most)),
          dim3(static_cast<unsigned>(warps * kWarp), static_cast<unsigned>(rows))};
}

template <bool kRotate, bool kStochastic>
void launch_quantize(Gpu& gpu, const CodedRows& p, const Streams& streams) {
  if (p.shift >= 0 && 1 << p.shift <= kWarpChunk) {
    const Launch l = launch_for(gpu, p, kBlockWarps);
    return launch(gpu, "quantize", quantize_in_warps_kernel<kRotate, kStochastic>, l.grid, l.block, 0, p, streams);
  }
  const size_t row_bytes = sizeof(int) * static_cast<size_t>(p.groups);
  const size_t fitting = kPlainShared / row_bytes;
  const Launch l = launch_for(gpu, p, fitting < kBlockWarps ? static_cast<int>(fitting) : kBlockWarps);
  launch(gpu, "quantize", quantize_in_block_kernel<kRotate, kStochastic>, l.grid, l.block, row_bytes * l.block.y, p,
         streams);
}

}  // namespace

void quantize(Gpu& gpu, Tensor codes, Tensor scales, Tensor x, const QuantFormat& format, const RandomStream& signs,
              const RandomStream& rounding) {
  const CodedRows p = coded_rows(codes, scales, x, format);
  const Streams streams{device_stream(signs), device_stream(rounding)};
  if (format.rotate > 0) {
    format.stochastic ? launch_quantize<true, true>(gpu, p, streams) : launch_quantize<true, false>(gpu, p, streams);
  } else {
    format.stochastic ? launch_quantize<false, true>(gpu, p, streams) : launch_quantize<false, false>(gpu, p, streams);
  }
}

void dequantize(Gpu& gpu, Tensor x, Tensor codes, Tensor scales, const QuantFormat& format, const RandomStream& signs) {
  const CodedRows p = coded_rows(codes, scales, x, format);
  const Launch l = launch_for(gpu, p, kBlockWarps);
  if (format.rotate > 0) {
    launch(gpu, "dequantize", dequantize_rotated_kernel, l.grid, l.block, 0, p, device_stream(signs));
  } else {
    launch(gpu, "dequantize", dequantize_kernel, l.grid, l.block, 0, p);
  }
}

}  // namespace llmz::cuda
