#include "kernels/cuda/attention_tiles.cuh"

// Attention forward with tensor cores. A block has 128 queries of one head, 32 a warp, and goes through the keys that
// they see, a tile at a time, with the softmax's running maximum and sum (Dao, FlashAttention-2, 2023). A tile of
// queries and keys costs 4·128·keys·D operations and reads 4·keys·D bytes of k and v: 128 operations a byte.

namespace llmz::cuda {
namespace {

template <int Width>
struct ForwardTiling {
  // Two row tiles a warp use each key fragment twice; more does not fit the registers beside 128 columns of sums.
  static constexpr int kM = 2, kWarpRows = 16 * kM, kRows = kAttentionWarps * kWarpRows;
  static constexpr int kKeys = Width <= 64 ? 64 : 32;
  static constexpr int kBlocks = Width <= 32 ? 3 : 2;  // on a multiprocessor, as far as registers go
  static constexpr size_t kSharedBytes = tile_bytes<Width>(kRows + 4 * kKeys);
};

/// What a warp knows of its rows: Σ exp(score − largest)·v, the largest score, and this lane's part of
/// Σ exp(score − largest). Scores here are without the factor 1/√D.
template <int Width>
struct RunningSoftmax {
  static constexpr int kM = ForwardTiling<Width>::kM;
  float sum[kM][Width / 8][4], largest[kM][2], total[kM][2];
};

/// Scores to exponentials, and the sums so far to the new maximum. `factor`: log₂e/√D.
template <int Width, int N>
__device__ __forceinline__ void soften(RunningSoftmax<Width>& rows, float (&s)[ForwardTiling<Width>::kM][N / 8][4],
                                       float factor) {
  constexpr int kM = ForwardTiling<Width>::kM;
  float shrink[kM][2];
  bool moved = false;
#pragma unroll
  for (int m = 0; m < kM; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float high = rows.largest[m][half];
#pragma unroll
      for (int n = 0; n < N / 8; ++n) high = fmaxf(high, fmaxf(s[m][n][2 * half], s[m][n][2 * half + 1]));
      high = fmaxf(high, __shfl_xor_sync(kAllLanes, high, 1));
      high = fmaxf(high, __shfl_xor_sync(kAllLanes, high, 2));
      shrink[m][half] = exp2_fast((rows.largest[m][half] - high) * factor);
      moved |= high != rows.largest[m][half];
      rows.largest[m][half] = high;
      float part = 0;
#pragma unroll
      for (int n = 0; n < N / 8; ++n) {
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
          s[m][n][i] = exp2_fast(s[m][n][i] * factor - high * factor);
          part += s[m][n][i];
        }
      }
      rows.total[m][half] = rows.total[m][half] * shrink[m][half] + part;
    }
  }
  if (__ballot_sync(kAllLanes, moved) == 0) return;  // times one
#pragma unroll
  for (int m = 0; m < kM; ++m) {
#pragma unroll
    for (int n = 0; n < Width / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) rows.sum[m][n][i] *= shrink[m][i / 2];
    }
  }
}

/// out and lse of a warp's rows from `first` on.
template <int Width>
__device__ __forceinline__ void finish(const AttentionForward& x, int b, int h, int first, RunningSoftmax<Width>& rows,
                                       uint16_t* staging) {
  constexpr int kM = ForwardTiling<Width>::kM;
  const AttentionShape& shape = x.shape;
  float inverse[kM][2];
#pragma unroll
  for (int m = 0; m < kM; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float total = rows.total[m][half];
      total += __shfl_xor_sync(kAllLanes, total, 1);
      total += __shfl_xor_sync(kAllLanes, total, 2);
      inverse[m][half] = 1.0f / total;
      const int query = first + 16 * m + 8 * half + this_lane() / 4;
      if (this_lane() % 4 == 0 && query < shape.queries) {
        x.lse.row(b, h)[query] = rows.largest[m][half] * shape.scale + logf(total);
      }
    }
  }
  store_rows<Width, kM>(x.out, b, h, first, shape.queries - first, shape.width, staging, rows.sum, inverse);
}

template <int Width>
__global__ void __launch_bounds__(kAttentionThreads, ForwardTiling<Width>::kBlocks) forward_kernel(AttentionForward x) {
  using Tiling = ForwardTiling<Width>;
  constexpr int kM = Tiling::kM, kKeys = Tiling::kKeys, kTile = kKeys * kPitch<Width>;
  const AttentionShape& shape = x.shape;
  const int b = blockIdx.z, h = blockIdx.y, kv = h / shape.group;
  const int first = (gridDim.x - 1 - blockIdx.x) * Tiling::kRows;  // those that see most keys go first
  const int warp_first = first + this_warp() * Tiling::kWarpRows;
  const int seen = shape.before() + min(first + Tiling::kRows, shape.queries);  // keys seen by any row
  uint16_t* const q = dynamic_shared<uint16_t>();
  uint16_t* const streamed = q + Tiling::kRows * kPitch<Width>;  // [2 stages][k, v]
  const auto copy_keys = [&](int first_key, uint16_t* to) {
    copy_rows<Width, kKeys>(to, x.k, b, kv, first_key, shape.keys - first_key, shape.width);
    copy_rows<Width, kKeys>(to + kTile, x.v, b, kv, first_key, shape.keys - first_key, shape.width);
  };
  copy_rows<Width, Tiling::kRows>(q, x.q, b, h, first, shape.queries - first, shape.width);
  copy_keys(0, streamed);
  uint16_t* const warp_q = q + this_warp() * Tiling::kWarpRows * kPitch<Width>;

  RunningSoftmax<Width> rows;
  clear(rows.sum);
#pragma unroll
  for (int m = 0; m < kM; ++m) {
    rows.largest[m][0] = rows.largest[m][1] = -INFINITY;
    rows.total[m][0] = rows.total[m][1] = 0.0f;
  }
  for (int key = 0, stage = 0; key < seen; key += kKeys, stage ^= 1) {
    wait_for_copies();
    __syncthreads();  // the tile is there, and nobody reads the other stage any more
    if (key + kKeys < seen) copy_keys(key + kKeys, streamed + (stage ^ 1) * 2 * kTile);
    const int last_seen = warp_first + shape.before();  // by the warp's first row; each further row sees one more
    if (warp_first >= shape.queries || key > last_seen + Tiling::kWarpRows - 1) continue;
    const uint16_t* const k = streamed + stage * 2 * kTile;
    float s[kM][kKeys / 8][4];
    multiply_rows<Width, kM, kKeys>(s, warp_q, k);
    if (key + kKeys - 1 > last_seen) {
      each_element<kM, kKeys>([&](int m, int n, int i, int row, int column) {
        if (key + column > last_seen + row) s[m][n][i] = -INFINITY;
      });
    }
    soften<Width, kKeys>(rows, s, shape.scale * kLog2E);
    uint32_t p[kM][kKeys / 16][4];
    round_to_factor<kM, kKeys>(p, s);
    multiply_columns<Width, kM, kKeys>(rows.sum, p, k + kTile);
  }
  finish<Width>(x, b, h, warp_first, rows, warp_q);
}

}  // namespace

void launch_forward_tiles(Gpu& gpu, const AttentionForward& x) {
  with_padded_width(x.shape.width, [&](auto width) {
    using Tiling = ForwardTiling<width()>;
    const dim3 grid(blocks_for(x.shape.queries, Tiling::kRows), x.shape.heads, x.shape.batch);
    launch(gpu, "attention_forward", forward_kernel<width()>, grid, kAttentionThreads, Tiling::kSharedBytes, x);
  });
}

}  // namespace llmz::cuda
