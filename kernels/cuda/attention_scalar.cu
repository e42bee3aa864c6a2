#include "kernels/cuda/attention.cuh"

// Attention without tensor cores: f32, and bf16 whose rows cannot be read 16 bytes at a time. A warp owns a row of
// queries (or of keys, for dk and dv) and goes through the rows of the other side 32 at a time, which the block's warps
// share: a lane takes one of them for the scores, then each lane its columns of the sums. Everything is f32.

namespace llmz::cuda {
namespace {

constexpr int kRows = 8, kScalarThreads = kRows * kWarp;  // a row a warp
constexpr int kTile = kWarp;

/// Shared memory: two tiles of kTile rows, at an odd distance, and two rows of each warp.
struct Scratch {
  int pitch, width;
  float *first, *second, *own_first, *own_second;
  __device__ explicit Scratch(int w) : pitch(w | 1), width(w), first(dynamic_shared<float>()) {
    second = first + kTile * pitch;
    own_first = second + kTile * pitch + threadIdx.x / kWarp * 2 * width;
    own_second = own_first + width;
  }
  static size_t bytes(int width) { return sizeof(float) * (2 * kTile * (width | 1) + 2 * kRows * width); }

  /// Rows from (b, h, row) on, zeros past `valid`. By the whole block.
  __device__ void fill(float* tile, const HeadRows& from, int b, int h, int row, int valid) const {
    const int64_t source = from.offset(b, h, row);
    for (int i = threadIdx.x; i < kTile * width; i += kScalarThreads) {
      const int r = i / width, c = i % width;
      tile[r * pitch + c] = r < valid ? from.at(source + r * from.token + c) : 0.0f;
    }
  }
  /// One row, by a warp.
  __device__ void fill_own(float* to, const HeadRows& from, int b, int h, int row, bool valid) const {
    const int64_t source = from.offset(b, h, row);
    for (int c = threadIdx.x % kWarp; c < width; c += kWarp) to[c] = valid ? from.at(source + c) : 0.0f;
  }
  /// own · the lane's row of a tile.
  __device__ float dot(const float* own, const float* tile) const {
    const float* const row = tile + threadIdx.x % kWarp * pitch;
    float sum = 0;
    for (int c = 0; c < width; ++c) sum = fmaf(own[c], row[c], sum);
    return sum;
  }
  /// sum[i], the lane's column lane + 32·i, += Σ_rows factor·tile; a lane has the factor of one row.
  template <int N>
  __device__ void add(float (&sum)[N], float factor, const float* tile) const {
    const int lane = threadIdx.x % kWarp;
    for (int r = 0; r < kTile; ++r) {
      const float of_row = __shfl_sync(kAllLanes, factor, r);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        if (lane + i * kWarp < width) sum[i] = fmaf(of_row, tile[r * pitch + lane + i * kWarp], sum[i]);
      }
    }
  }
  template <int N>
  __device__ void store(const HeadRows& to, int b, int h, int row, const float (&sum)[N], float factor) const {
    const int64_t target = to.offset(b, h, row);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const int c = threadIdx.x % kWarp + i * kWarp;
      if (c < width) to.put(target + c, sum[i] * factor);
    }
  }
};

/// N: columns a lane.
template <int N>
__global__ void forward_scalar_kernel(AttentionForward x) {
  const AttentionShape& shape = x.shape;
  const Scratch s(shape.width);
  const int lane = threadIdx.x % kWarp, b = blockIdx.z, h = blockIdx.y, kv = h / shape.group;
  const int first = blockIdx.x * kRows, query = first + static_cast<int>(threadIdx.x) / kWarp;
  const int limit = shape.limit(b), seen = shape.end_key(min(first + kRows, shape.queries) - 1, limit);
  s.fill_own(s.own_first, x.q, b, h, query, query < shape.queries);
  float sum[N] = {}, largest = kLowestScore, total = 0;
  for (int key = shape.first_key(first) / kTile * kTile; key < seen; key += kTile) {
    __syncthreads();
    s.fill(s.first, x.k, b, kv, key, shape.keys - key);
    s.fill(s.second, x.v, b, kv, key, shape.keys - key);
    __syncthreads();
    const bool visible = shape.sees(query, key + lane, limit);
    const float score = visible ? s.dot(s.own_first, s.first) * shape.scale : -INFINITY;
    const float high = fmaxf(largest, warp_max(score));
    const float shrink = expf(largest - high), p = expf(score - high);
    total = total * shrink + warp_sum(p);
    largest = high;
    for (float& column : sum) column *= shrink;
    s.add(sum, p, s.second);
  }
  if (query >= shape.queries) return;
  const bool none = total == 0.0f;
  s.store(x.out, b, h, query, sum, none ? 0.0f : 1.0f / total);
  if (lane == 0) x.lse.row(b, h)[query] = none ? 0.0f : largest + logf(total);
}

/// dq of a row, or with kDelta its Σ_keys p·(dout·v).
template <int N, bool kDelta>
__global__ void dq_scalar_kernel(AttentionBackward x) {
  const AttentionShape& shape = x.shape;
  const Scratch s(shape.width);
  const int lane = threadIdx.x % kWarp, b = blockIdx.z, h = blockIdx.y, kv = h / shape.group;
  const int first = blockIdx.x * kRows, query = first + static_cast<int>(threadIdx.x) / kWarp;
  const int limit = shape.limit(b), seen = shape.end_key(min(first + kRows, shape.queries) - 1, limit);
  const bool there = query < shape.queries;
  s.fill_own(s.own_first, x.q, b, h, query, there);
  s.fill_own(s.own_second, x.dout, b, h, query, there);
  const float lse = there ? x.lse.row(b, h)[query] : 0.0f, delta = there && !kDelta ? x.delta.row(b, h)[query] : 0.0f;
  float sum[N] = {}, total = 0;
  for (int key = shape.first_key(first) / kTile * kTile; key < seen; key += kTile) {
    __syncthreads();
    s.fill(s.first, x.k, b, kv, key, shape.keys - key);
    s.fill(s.second, x.v, b, kv, key, shape.keys - key);
    __syncthreads();
    const bool visible = shape.sees(query, key + lane, limit);
    const float p = visible ? expf(s.dot(s.own_first, s.first) * shape.scale - lse) : 0.0f;
    const float dp = s.dot(s.own_second, s.second);
    if constexpr (kDelta) {
      total += warp_sum(p * dp);
    } else {
      s.add(sum, p * (dp - delta), s.first);
    }
  }
  if (!there) return;
  if constexpr (kDelta) {
    if (lane == 0) x.delta.row(b, h)[query] = total;
  } else {
    s.store(x.dq, b, h, query, sum, shape.scale);
  }
}

template <int N>
__global__ void dkv_scalar_kernel(AttentionBackward x) {
  const AttentionShape& shape = x.shape;
  const Scratch s(shape.width);
  const int lane = threadIdx.x % kWarp, b = blockIdx.z, kv = blockIdx.y;
  const int first = blockIdx.x * kRows, key = first + static_cast<int>(threadIdx.x) / kWarp;
  s.fill_own(s.own_first, x.k, b, kv, key, key < shape.keys);
  s.fill_own(s.own_second, x.v, b, kv, key, key < shape.keys);
  const int limit = shape.limit(b), end_query = shape.end_query(first + kRows - 1);
  float dk[N] = {}, dv[N] = {};
  for (int h = kv * shape.group; h < (kv + 1) * shape.group; ++h) {
    for (int query = shape.first_query(first); query < end_query; query += kTile) {
      __syncthreads();
      s.fill(s.first, x.q, b, h, query, shape.queries - query);
      s.fill(s.second, x.dout, b, h, query, shape.queries - query);
      __syncthreads();
      const int mine = query + lane;
      const bool visible = mine < shape.queries && shape.sees(mine, key, limit);
      const float lse = visible ? x.lse.row(b, h)[mine] : 0.0f, delta = visible ? x.delta.row(b, h)[mine] : 0.0f;
      const float p = visible ? expf(s.dot(s.own_first, s.first) * shape.scale - lse) : 0.0f;
      const float dp = s.dot(s.own_second, s.second);
      s.add(dv, p, s.second);
      s.add(dk, p * (dp - delta), s.first);
    }
  }
  if (key >= shape.keys) return;
  s.store(x.dk, b, kv, key, dk, shape.scale);
  s.store(x.dv, b, kv, key, dv, 1.0f);
}

/// f(std::integral_constant of the columns a lane) for a head's width.
template <class F>
void with_columns(int width, F&& f) {
  if (width <= 32) return f(std::integral_constant<int, 1>());
  if (width <= 64) return f(std::integral_constant<int, 2>());
  if (width <= 128) return f(std::integral_constant<int, 4>());
  f(std::integral_constant<int, 8>());
}

}  // namespace

void launch_forward_scalar(Gpu& gpu, const AttentionForward& x) {
  with_columns(x.shape.width, [&](auto columns) {
    const dim3 grid(blocks_for(x.shape.queries, kRows), x.shape.heads, x.shape.batch);
    launch(gpu, "attention_forward", forward_scalar_kernel<columns()>, grid, kScalarThreads,
           Scratch::bytes(x.shape.width), x);
  });
}

void launch_backward_scalar(Gpu& gpu, const AttentionBackward& x) {
  const size_t bytes = Scratch::bytes(x.shape.width);
  const dim3 queries(blocks_for(x.shape.queries, kRows), x.shape.heads, x.shape.batch);
  const dim3 keys(blocks_for(x.shape.keys, kRows), x.shape.kv_heads, x.shape.batch);
  with_columns(x.shape.width, [&](auto columns) {
    if (x.out.data != nullptr) {
      launch_delta_rows(gpu, x, false);
    } else {
      launch(gpu, "attention_delta", dq_scalar_kernel<1, true>, queries, kScalarThreads, bytes, x);
    }
    launch(gpu, "attention_dq", dq_scalar_kernel<columns(), false>, queries, kScalarThreads, bytes, x);
    launch(gpu, "attention_dkv", dkv_scalar_kernel<columns()>, keys, kScalarThreads, bytes, x);
  });
}

}  // namespace llmz::cuda
