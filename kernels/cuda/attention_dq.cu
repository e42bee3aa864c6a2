#include "kernels/cuda/attention_tiles.cuh"

// Attention backward over the queries, with tensor cores: with p = exp(score − lse) and dp = dout·vᵀ, one kernel for
//   dq = Σ_keys ds·k/√D,  ds = p·(dp − delta)
// and the same without the last product for delta = Σ_keys p·dp, where the forward's output is not there. A block has
// the queries and the rows of dout of one head and goes through the keys that they see. A tile of queries and keys
// costs 6 (4) ·rows·keys·D operations and reads 4·keys·D bytes.

namespace llmz::cuda {
namespace {

template <int Width, int M>
struct QueryTiling {
  static constexpr int kWarpRows = 16 * M, kRows = kAttentionWarps * kWarpRows;
  static constexpr int kKeys = Width <= 64 ? 64 : 32, kChunk = 32;  // streamed, and computed with at a time
  static constexpr int kBlocks = M == 1 || Width <= 32 ? 3 : 2;  // on a multiprocessor: registers are what limits them
  static constexpr size_t kSharedBytes = tile_bytes<Width>(2 * kRows + 4 * kKeys);
};

/// What a lane knows of its rows g and g + 8 of each row tile.
template <int M>
struct QueryNumbers {
  float lse[M][2];    // times log₂e
  float delta[M][2];  // given for dq; this lane's part of the sum otherwise
};

/// Numbers of the warp's queries from `first` on; zeros past the last, where dout is zero too.
template <int M>
__device__ __forceinline__ void read_numbers(QueryNumbers<M>& numbers, const AttentionBackward& x, int b, int h,
                                             int first, bool with_delta) {
#pragma unroll
  for (int m = 0; m < M; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int query = first + 16 * m + 8 * half + this_lane() / 4;
      const bool there = query < x.shape.queries;
      numbers.lse[m][half] = there ? x.lse.row(b, h)[query] * kLog2E : 0.0f;
      numbers.delta[m][half] = there && with_delta ? x.delta.row(b, h)[query] : 0.0f;
    }
  }
}

template <int M>
__device__ __forceinline__ void write_delta(QueryNumbers<M>& numbers, const AttentionBackward& x, int b, int h,
                                            int first) {
#pragma unroll
  for (int m = 0; m < M; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float total = numbers.delta[m][half];
      total += __shfl_xor_sync(kAllLanes, total, 1);
      total += __shfl_xor_sync(kAllLanes, total, 2);
      const int query = first + 16 * m + 8 * half + this_lane() / 4;
      if (this_lane() % 4 == 0 && query < x.shape.queries) x.delta.row(b, h)[query] = total;
    }
  }
}

/// One chunk of keys: their part of `sum` (dq·√D), or of delta. The warp's first row sees keys up to `last_seen`,
/// counted from the chunk's first.
template <int Width, int M, int N, bool kDelta>
__device__ __forceinline__ void add_keys(float (&sum)[M][Width / 8][4], QueryNumbers<M>& numbers, const uint16_t* q,
                                         const uint16_t* dout, const uint16_t* k, const uint16_t* v, int last_seen,
                                         float factor) {
  float p[M][N / 8][4], dp[M][N / 8][4];
  multiply_rows<Width, M, N>(p, q, k);
  multiply_rows<Width, M, N>(dp, dout, v);
  if (N - 1 > last_seen) {
    each_element<M, N>([&](int m, int n, int i, int row, int column) {
      if (column > last_seen + row) p[m][n][i] = -INFINITY;
    });
  }
  each_element<M, N>([&](int m, int n, int i, int, int) {
    const float x = exp2_fast(p[m][n][i] * factor - numbers.lse[m][i / 2]);
    if constexpr (kDelta) {
      numbers.delta[m][i / 2] += x * dp[m][n][i];
    } else {
      p[m][n][i] = x * (dp[m][n][i] - numbers.delta[m][i / 2]);
    }
  });
  if constexpr (!kDelta) {
    uint32_t ds[M][N / 16][4];
    round_to_factor<M, N>(ds, p);
    multiply_columns<Width, M, N>(sum, ds, k);
  }
}

template <int Width, int M, bool kDelta>
__global__ void __launch_bounds__(kAttentionThreads, kDelta ? 3 : QueryTiling<Width, M>::kBlocks)
    query_gradients_kernel(AttentionBackward x) {
  using Tiling = QueryTiling<Width, M>;
  constexpr int kKeys = Tiling::kKeys, kTile = kKeys * kPitch<Width>, kResident = Tiling::kRows * kPitch<Width>;
  const AttentionShape& shape = x.shape;
  const int b = blockIdx.z, h = blockIdx.y, kv = h / shape.group;
  const int first = (gridDim.x - 1 - blockIdx.x) * Tiling::kRows;  // those that see most keys go first
  const int warp_first = first + this_warp() * Tiling::kWarpRows, valid = shape.queries - first;
  const int seen = shape.before() + min(first + Tiling::kRows, shape.queries);
  uint16_t* const q = dynamic_shared<uint16_t>();
  uint16_t* const streamed = q + 2 * kResident;  // [2 stages][k, v]
  const auto copy_keys = [&](int first_key, uint16_t* to) {
    copy_rows<Width, kKeys>(to, x.k, b, kv, first_key, shape.keys - first_key, shape.width);
    copy_rows<Width, kKeys>(to + kTile, x.v, b, kv, first_key, shape.keys - first_key, shape.width);
  };
  copy_rows<Width, Tiling::kRows>(q, x.q, b, h, first, valid, shape.width);
  copy_rows<Width, Tiling::kRows>(q + kResident, x.dout, b, h, first, valid, shape.width);
  copy_keys(0, streamed);
  uint16_t* const warp_q = q + this_warp() * Tiling::kWarpRows * kPitch<Width>;

  QueryNumbers<M> numbers;
  read_numbers(numbers, x, b, h, warp_first, !kDelta);
  float sum[M][Width / 8][4];
  clear(sum);
  for (int key = 0, stage = 0; key < seen; key += kKeys, stage ^= 1) {
    wait_for_copies();
    __syncthreads();  // the tile is there, and nobody reads the other stage any more
    if (key + kKeys < seen) copy_keys(key + kKeys, streamed + (stage ^ 1) * 2 * kTile);
    const uint16_t* const k = streamed + stage * 2 * kTile;
#pragma unroll 1
    for (int chunk = 0; chunk < kKeys; chunk += Tiling::kChunk) {
      const int last_seen = warp_first + shape.before() - key - chunk;  // by the first row; the next sees one more
      if (warp_first >= shape.queries || last_seen + Tiling::kWarpRows - 1 < 0) break;
      add_keys<Width, M, Tiling::kChunk, kDelta>(sum, numbers, warp_q, warp_q + kResident, k + chunk * kPitch<Width>,
                                                 k + kTile + chunk * kPitch<Width>, last_seen, shape.scale * kLog2E);
    }
  }
  if constexpr (kDelta) {
    write_delta(numbers, x, b, h, warp_first);
  } else {
    float scale[M][2];
#pragma unroll
    for (int m = 0; m < M; ++m) scale[m][0] = scale[m][1] = shape.scale;
    store_rows<Width, M>(x.dq, b, h, warp_first, shape.queries - warp_first, shape.width, warp_q, sum, scale);
  }
}

template <bool kDelta>
void launch_query_tiles(Gpu& gpu, const char* name, const AttentionBackward& x) {
  with_padded_width(x.shape.width, [&](auto width) {
    // Two row tiles a warp use each key fragment twice. For the widest heads they would not fit the registers, nor the
    // block the shared memory of every GPU.
    constexpr int kM = width() <= 96 ? 2 : 1;
    using Tiling = QueryTiling<width(), kM>;
    const dim3 grid(blocks_for(x.shape.queries, Tiling::kRows), x.shape.heads, x.shape.batch);
    launch(gpu, name, query_gradients_kernel<width(), kM, kDelta>, grid, kAttentionThreads, Tiling::kSharedBytes, x);
  });
}

/// A row is read by kLanes lanes, N elements at a time.
template <int N>
__global__ void delta_rows_kernel(AttentionBackward x) {
  constexpr int kLanes = 8;
  const AttentionShape& shape = x.shape;
  const int64_t number = (int64_t{blockIdx.x} * blockDim.x + threadIdx.x) / kLanes;
  const int lane = threadIdx.x % kLanes;
  const int h = number % shape.heads, query = number / shape.heads % shape.queries;
  const int b = number / shape.heads / shape.queries;
  float sum = 0;
  if (b < shape.batch) {
    const int64_t at_out = x.out.offset(b, h, query), at_dout = x.dout.offset(b, h, query);
    for (int c = lane * N; c < shape.width; c += kLanes * N) {
      if constexpr (N == 8) {
        const auto pieces = [&](const HeadRows& rows, int64_t at) {
          return *reinterpret_cast<const uint4*>(static_cast<const uint16_t*>(rows.data) + at + c);
        };
        const uint4 p = pieces(x.out, at_out), r = pieces(x.dout, at_dout);
        const auto add = [&](uint32_t u, uint32_t w) {
          sum += __uint_as_float(u << 16) * __uint_as_float(w << 16);
          sum += __uint_as_float(u & 0xffff0000u) * __uint_as_float(w & 0xffff0000u);
        };
        add(p.x, r.x), add(p.y, r.y), add(p.z, r.z), add(p.w, r.w);
      } else {
        sum += x.out.at(at_out + c) * x.dout.at(at_dout + c);
      }
    }
  }
  for (int step = kLanes / 2; step > 0; step /= 2) sum += __shfl_xor_sync(kAllLanes, sum, step);
  if (lane == 0 && b < shape.batch) x.delta.row(b, h)[query] = sum;
}

}  // namespace

void launch_delta_rows(Gpu& gpu, const AttentionBackward& x, bool by_eights) {
  const int64_t rows = int64_t{x.shape.batch} * x.shape.heads * x.shape.queries;
  launch(gpu, "attention_delta", by_eights ? delta_rows_kernel<8> : delta_rows_kernel<1>,
         blocks_for(rows * 8, kThreads), kThreads, 0, x);
}

void launch_delta_tiles(Gpu& gpu, const AttentionBackward& x) { launch_query_tiles<true>(gpu, "attention_delta", x); }
void launch_dq_tiles(Gpu& gpu, const AttentionBackward& x) { launch_query_tiles<false>(gpu, "attention_dq", x); }

}  // namespace llmz::cuda
