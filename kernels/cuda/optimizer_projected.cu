#include "kernels/adam_scalars.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/limits.h"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/twins.h"
#include "kernels/cuda/weights.cuh"

// Projected Adam (CompAct): W = keep·W + factor·N·Pᵀ with N [m,r] from the moments and P [n,r] Gaussian. A block owns
// some columns of W, that is rows of P: it makes them from Philox once, in shared memory, as bf16, and then takes the
// rows of N past them, 64 at a time. So P is made `splits` times a step, never stored in device memory; the update of
// W lives in registers only. 2·m·n·r operations on the tensor cores; W is read and written once, N read n/columns
// times, mostly from the second-level cache.

namespace llmz::cuda {
namespace {

constexpr int kRows = 64;                                // of W that a block works on at a time: 16 a warp
constexpr int kFusedThreads = 2 * kRows;                 // 4 warps
constexpr int kStep = static_cast<int>(kFusedRankStep);  // of the rank, at a time
constexpr int kPad = 8;                                  // bf16 after each row: neighbours then lie in other banks
constexpr int kFusedBlocks = 264;                        // about: two for each multiprocessor of an H100

__global__ void direction_kernel(Operand direction, Operand m, Operand v, Operand grad, const float* grad_scale,
                                 AdamScalars<float> s, int64_t rows, int64_t rank, int64_t padded) {
  const float scale = grad_scale == nullptr ? 1.0f : *grad_scale;
  const int64_t all = rows * padded, stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t p = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; p < all; p += stride) {
    const int64_t row = p / padded, column = p - row * padded;
    if (column >= rank) {
      direction.put(p, 0.0f);
      continue;
    }
    const int64_t i = row * rank + column;
    const float g = grad.at(i) * scale;
    const float first = s.beta1 * m.at(i) + s.beta1_rest * g;
    const float second = s.beta2 * v.at(i) + s.beta2_rest * g * g;
    m.put(i, first);
    v.put(i, second);
    direction.put(p, first * s.first_correction / (sqrtf(second) / s.root_correction + s.eps));
  }
}

struct Update {
  WeightStore store;
  const uint16_t* direction;  ///< N, bf16 [m, padded]
  DeviceStream projector;
  float stddev, keep, factor;
  int64_t rows, width, rank, padded;
  bool pairs;  ///< two neighbouring elements of W can be read and written at once
};

/// P's rows first … first + kColumns − 1, bf16, into slab [kColumns, pitch]; zeros past the width and the rank.
template <int kColumns>
__device__ void make_slab(uint16_t* slab, int pitch, const Update& u, int64_t first) {
  for (int i = threadIdx.x; i < kColumns * pitch; i += blockDim.x) slab[i] = 0;
  __syncthreads();
  // The numbers of neighbouring rows follow one another: i·r + j for row i.
  const int64_t last = first + kColumns < u.width ? first + kColumns : u.width;
  const int64_t begin = first * u.rank, end = last * u.rank;
  for (int64_t draw = begin / 4 + threadIdx.x; 4 * draw < end; draw += blockDim.x) {
    const uint4 b = u.projector.block(static_cast<uint64_t>(draw));
    const float2 low = normal_pair(b.x, b.y), high = normal_pair(b.z, b.w);
    const float values[4] = {low.x, low.y, high.x, high.y};
    int64_t at = 4 * draw - begin;  // within the slab; the first draw may begin before it
    int64_t row = at / u.rank, column = at - row * u.rank;
    if (at < 0) row = 0, column = at;
#pragma unroll
    for (int k = 0; k < 4; ++k, ++at) {
      if (at >= 0 && at < end - begin) slab[row * pitch + column] = float_to_bf16(u.stddev * values[k]);
      if (++column == u.rank) column = 0, ++row;
    }
  }
  __syncthreads();
}

/// keep·W + factor·sum for one pair of neighbouring columns.
__device__ inline void move_pair(const Update& u, int64_t row, int64_t column, float left, float right) {
  if (row >= u.rows || column >= u.width) return;
  const int64_t i = row * u.width + column;
  if (u.pairs) {
    Pack<2> w = u.store.weight.load<2>(i, 0);
    w[0] = u.keep * w[0] + u.factor * left;
    w[1] = u.keep * w[1] + u.factor * right;
    u.store.store<2>(i, w);
    return;
  }
  Pack<1> w = u.store.weight.load<1>(i, 0);
  w[0] = u.keep * w[0] + u.factor * left;
  u.store.store<1>(i, w);
  if (column + 1 >= u.width) return;
  w = u.store.weight.load<1>(i + 1, 0);
  w[0] = u.keep * w[0] + u.factor * right;
  u.store.store<1>(i + 1, w);
}

/// Block (x, y): columns [x·kColumns, …), row tiles y, y + gridDim.y, … Shared: slab [kColumns, padded + kPad], then
/// two tiles of N [kRows, kStep + kPad].
template <int kColumns>
__global__ void __launch_bounds__(kFusedThreads, 2) projected_update_kernel(Update u) {
  constexpr int kTilePitch = kStep + kPad, kGroups = kColumns / 8;
  uint16_t* const slab = dynamic_shared<uint16_t>();
  const int pitch = static_cast<int>(u.padded) + kPad;
  uint16_t* const tiles = slab + kColumns * pitch;
  const int64_t first_column = static_cast<int64_t>(blockIdx.x) * kColumns;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  make_slab<kColumns>(slab, pitch, u, first_column);

  const int steps = static_cast<int>(u.padded) / kStep;
  const auto fetch = [&](int64_t first_row, int step, int buffer) {
    for (int i = threadIdx.x; i < kRows * kStep / 8; i += kFusedThreads) {
      const int row = i / (kStep / 8), column = i % (kStep / 8) * 8;
      const bool there = first_row + row < u.rows;
      const int64_t from = (there ? first_row + row : 0) * u.padded + step * kStep + column;
      copy_async<16>(tiles + (buffer * kRows + row) * kTilePitch + column, u.direction + from, there);
    }
  };
  for (int64_t first_row = static_cast<int64_t>(blockIdx.y) * kRows; first_row < u.rows;
       first_row += static_cast<int64_t>(gridDim.y) * kRows) {
    float sum[kGroups][4] = {};
    fetch(first_row, 0, 0);
    for (int step = 0; step < steps; ++step) {
      wait_for_copies();
      __syncthreads();  // this step's tile is there, and nobody reads the other buffer any more
      if (step + 1 < steps) fetch(first_row, step + 1, (step + 1) % 2);
      const uint16_t* const tile = tiles + (step % 2 * kRows + warp * 16) * kTilePitch;
#pragma unroll
      for (int k = 0; k < kStep; k += 16) {
        uint32_t a[4];
        load_matrices(a, tile + (lane % 16) * kTilePitch + k + lane / 16 * 8);
#pragma unroll
        for (int group = 0; group < kGroups; group += 2) {
          // Columns group·8 … + 15 of Pᵀ: matrices (columns 0–7, k), (0–7, k + 8), (8–15, k), (8–15, k + 8).
          uint32_t b[4];
          const int column = group * 8 + lane % 8 + lane / 16 * 8;
          load_matrices(b, slab + column * pitch + step * kStep + k + lane / 8 % 2 * 8);
          multiply_add(sum[group], a, b[0], b[1]);
          multiply_add(sum[group + 1], a, b[2], b[3]);
        }
      }
    }
    const int64_t row = first_row + warp * 16 + lane / 4;
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      const int64_t column = first_column + group * 8 + lane % 4 * 2;
      move_pair(u, row, column, sum[group][0], sum[group][1]);
      move_pair(u, row + 8, column, sum[group][2], sum[group][3]);
    }
    __syncthreads();  // before the next rows' first tile overwrites the buffer
  }
}

size_t shared_bytes(int columns, int64_t padded) {
  return (static_cast<size_t>(columns) * static_cast<size_t>(padded + kPad) + 2 * kRows * (kStep + kPad)) *
         sizeof(uint16_t);
}

}  // namespace

void adam_direction(Gpu& gpu, const ProjectedAdamArgs& a, Tensor direction) {
  const int64_t rows = direction.dim(0), padded = direction.dim(1), rank = a.m.dim(1);
  const float* const scale = a.grad_scale.present() ? a.grad_scale.as<float>() : nullptr;
  const Walk w{1, rows * padded};
  launch(gpu, "adam_direction", direction_kernel, w.blocks(1, kThreads, kMostBlocks), kThreads, 0, operand(direction),
         operand(a.m), operand(a.v), operand(a.low.factor), scale, AdamScalars<float>(a), rows, rank, padded);
}

void projected_update(Gpu& gpu, const ProjectedAdamArgs& a, Tensor direction, double factor) {
  const Projector& p = *a.low.projector;
  Update u;
  u.store = weight_store(a.weight, a.rounding);
  u.direction = static_cast<const uint16_t*>(direction.data);
  u.projector = device_stream(RandomStream(p.seed, Purpose::projector, p.layer));
  u.stddev = 1.0f / sqrtf(static_cast<float>(p.random_rank));
  u.keep = AdamScalars<float>(a).keep;
  u.factor = static_cast<float>(factor);
  u.rows = a.weight.dim(0), u.width = a.weight.dim(1), u.rank = p.random_rank, u.padded = direction.dim(1);
  u.pairs = by(2, a.weight) && by(2, a.rounding.shadow) && a.rounding.first % 2 == 0;

  int columns = 64;
  while (columns > 16 && shared_bytes(columns, u.padded) > gpu.shared_memory_limit()) columns /= 2;
  const auto kernel = columns == 64   ? projected_update_kernel<64>
                      : columns == 32 ? projected_update_kernel<32>
                                      : projected_update_kernel<16>;
  const unsigned blocks = blocks_for(u.width, columns);
  const unsigned row_tiles = blocks_for(u.rows, kRows);
  // A split makes its columns of P once more: few, and no more than fill the GPU.
  const unsigned splits = kFusedBlocks / blocks < 1 ? 1 : kFusedBlocks / blocks;
  launch(gpu, "projected_update", kernel, dim3(blocks, splits < row_tiles ? splits : row_tiles), kFusedThreads,
         shared_bytes(columns, u.padded), u);
}

}  // namespace llmz::cuda
