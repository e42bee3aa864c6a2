#pragma once

// What the kernels of attention share: where rows lie, and who sees whom. Two paths: tensor cores for bf16 with rows
// that can be read 16 bytes at a time, scalar arithmetic for all else.

#include <type_traits>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/limits.h"

namespace llmz::cuda {

constexpr float kLog2E = 1.4426950408889634f;

/// Rows of [B,S,heads,D]; strides in elements.
struct HeadRows {
  void* data = nullptr;
  int64_t batch = 0, token = 0, head = 0;
  bool half = false;  ///< bf16, else f32

  __device__ int64_t offset(int b, int h, int64_t first) const { return b * batch + h * head + first * token; }
  __device__ float at(int64_t i) const { return load_one(data, half, i); }
  __device__ void put(int64_t i, float x) const { store_one(data, half, i, x); }
};

/// One number a query: [B,heads,Sq].
struct RowNumbers {
  float* data = nullptr;
  int64_t batch = 0, head = 0;
  __device__ float* row(int b, int h) const { return data + b * batch + h * head; }
};

struct AttentionShape {
  int batch, queries, keys, heads, kv_heads, group, width;
  float scale;  ///< 1/√D
  bool causal = true;
  int window = 0;                ///< 0: none
  const int* lengths = nullptr;  ///< [B]; null: no padding
  bool only_causal() const { return causal && window == 0 && lengths == nullptr; }

  /// Query i stands at position i + before(): with `only_causal` it sees keys up to that.
  __host__ __device__ int before() const { return keys - queries; }
  /// Keys of sequence b that are no padding.
  __device__ int limit(int b) const { return lengths == nullptr ? keys : min(max(lengths[b], 0), keys); }
  __device__ int first_key(int query) const { return window == 0 ? 0 : max(0, query + before() - window + 1); }
  /// Past the last key that a query sees, and past the last query that sees a key.
  __device__ int end_key(int query, int key_limit) const {
    if (!causal && window == 0) return key_limit;
    return min(key_limit, query + before() + (causal ? 1 : window));
  }
  __device__ int end_query(int key) const { return window == 0 ? queries : min(queries, key + window - before()); }
  __device__ int first_query(int key) const {
    if (!causal && window == 0) return 0;
    return max(0, key - before() - (causal ? 0 : window - 1));
  }
  __device__ bool sees(int query, int key, int key_limit) const {
    return key >= first_key(query) && key < end_key(query, key_limit);
  }
};

/// The lowest score there is to begin with where rows may see nothing of a tile: finite, so that less −∞ is no NaN.
constexpr float kLowestScore = -1e30f;

struct AttentionForward {
  AttentionShape shape;
  HeadRows out, q, k, v;
  RowNumbers lse;
};

struct AttentionBackward {
  AttentionShape shape;
  HeadRows dq, dk, dv, dout, out, q, k, v;  ///< `out` may be absent
  RowNumbers lse, delta;                    ///< delta: Σ dout·out of the row, in the workspace
};

// Tensor cores: widths up to 128. attention_forward.cu, attention_dq.cu, attention_dkv.cu
void launch_forward_tiles(Gpu& gpu, const AttentionForward& x);
void launch_delta_tiles(Gpu& gpu, const AttentionBackward& x);  ///< from the keys
void launch_dq_tiles(Gpu& gpu, const AttentionBackward& x);
void launch_dkv_tiles(Gpu& gpu, const AttentionBackward& x);

/// delta from dout and out, on either path; `by_eights`: bf16, rows readable 16 bytes at a time.
void launch_delta_rows(Gpu& gpu, const AttentionBackward& x, bool by_eights);

// attention_scalar.cu: widths up to 256
void launch_forward_scalar(Gpu& gpu, const AttentionForward& x);
void launch_backward_scalar(Gpu& gpu, const AttentionBackward& x);

}  // namespace llmz::cuda
