#include "kernels/cuda/attention_tiles.cuh"

// Attention backward over the keys, with tensor cores. A block has a tile of one head's keys and values and goes
// through the queries that see them, of all query heads that read this head, in a fixed order: its sums are its own.
// Scores are computed transposed, pᵀ = exp(k·qᵀ/√D − lse), so that
//   dv = pᵀ·dout,  dk = dsᵀ·q/√D,  ds = p·(dout·vᵀ − delta)
// take pᵀ and dsᵀ from the registers that hold them. A tile of keys and queries costs 8·keys·queries·D operations and
// reads 4·queries·D bytes.

namespace llmz::cuda {
namespace {

template <int Width>
struct KeyTiling {
  static constexpr int kM = Width <= 64 ? 2 : 1;  // what the registers take beside 2·Width·kM/4 sums
  static constexpr int kWarpRows = 16 * kM, kRows = kAttentionWarps * kWarpRows;
  static constexpr int kQueries = Width <= 64 ? 64 : 32, kChunk = 32;  // streamed, and computed with at a time
  static constexpr int kTile = kQueries * kPitch<Width>;
  static constexpr size_t kNumberBytes = 4 * 4 * kQueries;  // [2 stages][lse, delta]
  static constexpr size_t kSharedBytes = tile_bytes<Width>(2 * kRows + 4 * kQueries) + kNumberBytes;
};

/// A stage of the stream.
struct Queries {
  uint16_t *q, *dout;  // [kQueries] rows
  float *lse, *delta;  // [kQueries]
};

/// Where in the queries that see a block's keys: the tiles of one head, then the next head's.
struct Cursor {
  int head, query, stage = 0;
  __device__ void advance(int first, int end, int tile) {
    query += tile, stage ^= 1;
    if (query >= end) query = first, ++head;
  }
};

template <int Width>
__device__ __forceinline__ void copy_queries(const Queries& to, const AttentionBackward& x, int b, int h, int first) {
  constexpr int kQueries = KeyTiling<Width>::kQueries;
  const int valid = x.shape.queries - first;
  copy_rows<Width, kQueries>(to.q, x.q, b, h, first, valid, x.shape.width);
  copy_rows<Width, kQueries>(to.dout, x.dout, b, h, first, valid, x.shape.width);
  static_assert(2 * kQueries <= kAttentionThreads);
  const int i = static_cast<int>(threadIdx.x) % kQueries;
  const int which = static_cast<int>(threadIdx.x) / kQueries;
  if (which >= 2) return;
  const float* const numbers = (which == 0 ? x.lse : x.delta).row(b, h);
  const bool wanted = i < valid;
  copy_async<4>((which == 0 ? to.lse : to.delta) + i, wanted ? numbers + first + i : numbers, wanted);
}

/// One chunk of queries, beginning at `chunk` of the stage: their parts of dv and of dk·√D. The warp's key in row r is
/// hidden from the chunk's query c where r > c + `behind`.
template <int Width>
__device__ __forceinline__ void add_queries(float (&dk)[KeyTiling<Width>::kM][Width / 8][4],
                                            float (&dv)[KeyTiling<Width>::kM][Width / 8][4], const uint16_t* k,
                                            const uint16_t* v, const Queries& from, int chunk, int behind,
                                            float factor) {
  constexpr int kM = KeyTiling<Width>::kM, N = KeyTiling<Width>::kChunk;
  const uint16_t *q = from.q + chunk * kPitch<Width>, *dout = from.dout + chunk * kPitch<Width>;
  float p[kM][N / 8][4], ds[kM][N / 8][4];
  multiply_rows<Width, kM, N>(p, k, q);
  multiply_rows<Width, kM, N>(ds, v, dout);
  if (KeyTiling<Width>::kWarpRows - 1 > behind) {
    each_element<kM, N>([&](int m, int n, int i, int row, int column) {
      if (row > column + behind) p[m][n][i] = -INFINITY;
    });
  }
  each_element<kM, N>([&](int m, int n, int i, int, int column) {
    const float x = exp2_fast(p[m][n][i] * factor - from.lse[chunk + column] * kLog2E);
    p[m][n][i] = x;
    ds[m][n][i] = x * (ds[m][n][i] - from.delta[chunk + column]);
  });
  uint32_t rounded[kM][N / 16][4];
  round_to_factor<kM, N>(rounded, p);
  multiply_columns<Width, kM, N>(dv, rounded, dout);
  round_to_factor<kM, N>(rounded, ds);
  multiply_columns<Width, kM, N>(dk, rounded, q);
}

template <int Width>
__global__ void __launch_bounds__(kAttentionThreads, 2) key_gradients_kernel(AttentionBackward x) {
  using Tiling = KeyTiling<Width>;
  constexpr int kM = Tiling::kM, kQueries = Tiling::kQueries, kResident = Tiling::kRows * kPitch<Width>;
  const AttentionShape& shape = x.shape;
  const int b = blockIdx.z, kv = blockIdx.y, first = blockIdx.x * Tiling::kRows;  // the first keys are seen most
  const int warp_first = first + this_warp() * Tiling::kWarpRows, valid = shape.keys - first;
  const int first_query = max(0, first - shape.before()) / kQueries * kQueries;
  const int end_head = shape.queries > 0 ? (kv + 1) * shape.group : 0;
  uint16_t* const k = dynamic_shared<uint16_t>();
  const auto stage = [&](int which) {
    uint16_t* const tiles = k + 2 * kResident + which * 2 * Tiling::kTile;
    float* const numbers = reinterpret_cast<float*>(k + 2 * kResident + 4 * Tiling::kTile) + which * 2 * kQueries;
    return Queries{tiles, tiles + Tiling::kTile, numbers, numbers + kQueries};
  };
  const auto copy_at = [&](const Cursor& at) {
    if (at.head < end_head) copy_queries<Width>(stage(at.stage), x, b, at.head, at.query);
  };
  copy_rows<Width, Tiling::kRows>(k, x.k, b, kv, first, valid, shape.width);
  copy_rows<Width, Tiling::kRows>(k + kResident, x.v, b, kv, first, valid, shape.width);
  Cursor at{kv * shape.group, first_query};
  copy_at(at);
  uint16_t* const warp_k = k + this_warp() * Tiling::kWarpRows * kPitch<Width>;

  float dk[kM][Width / 8][4], dv[kM][Width / 8][4];
  clear(dk);
  clear(dv);
  while (at.head < end_head) {
    wait_for_copies();
    __syncthreads();  // the tile is there, and nobody reads the other stage any more
    const Cursor now = at;
    at.advance(first_query, shape.queries, kQueries);
    copy_at(at);
#pragma unroll 1
    for (int chunk = 0; chunk < kQueries; chunk += Tiling::kChunk) {
      const int behind = now.query + chunk + shape.before() - warp_first;
      if (warp_first >= shape.keys || behind + Tiling::kChunk - 1 < 0) continue;
      add_queries<Width>(dk, dv, warp_k, warp_k + kResident, stage(now.stage), chunk, behind, shape.scale * kLog2E);
    }
  }
  float ones[kM][2], scale[kM][2];
#pragma unroll
  for (int m = 0; m < kM; ++m) {
    ones[m][0] = ones[m][1] = 1.0f;
    scale[m][0] = scale[m][1] = shape.scale;
  }
  wait_for_copies();
  __syncthreads();  // without queries nobody has waited for the tile that now takes the results
  store_rows<Width, kM>(x.dk, b, kv, warp_first, shape.keys - warp_first, shape.width, warp_k, dk, scale);
  store_rows<Width, kM>(x.dv, b, kv, warp_first, shape.keys - warp_first, shape.width, warp_k + kResident, dv, ones);
}

}  // namespace

void launch_dkv_tiles(Gpu& gpu, const AttentionBackward& x) {
  with_padded_width(x.shape.width, [&](auto width) {
    using Tiling = KeyTiling<width()>;
    const dim3 grid(blocks_for(x.shape.keys, Tiling::kRows), x.shape.kv_heads, x.shape.batch);
    launch(gpu, "attention_dkv", key_gradients_kernel<width()>, grid, kAttentionThreads, Tiling::kSharedBytes, x);
  });
}

}  // namespace llmz::cuda
