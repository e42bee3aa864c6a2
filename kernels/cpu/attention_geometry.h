#pragma once

// What attention's tiled kernels share: rows of one head, the shapes of a call, its queries cut into tiles, and how the
// tiles are dealt out to threads.

#include <omp.h>

#include <algorithm>
#include <cmath>

#include "kernels/cpu/attention_rows.h"
#include "kernels/cpu/attention_tiles.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/vec_math.h"

namespace llmz::cpu {

inline int64_t padded(int64_t n, int64_t to) { return ceil_div(n, to) * to; }

/// Hands out a thread's workspace piece by piece; from a null base it only measures.
class Pieces {
 public:
  explicit Pieces(float* base) : base_(base) {}
  float* take(int64_t n) {
    float* piece = base_ == nullptr ? nullptr : base_ + used_;
    used_ += padded(n, 16);
    return piece;
  }
  int64_t used() const { return used_; }

 private:
  float* base_;
  int64_t used_ = 0;
};

/// Rows of one head: where its first row lies and how far apart rows are.
template <class T>
struct HeadRows {
  T* data;
  int64_t pitch, count, width;
  HeadRows(const Tensor& t, int64_t b, int64_t h, int64_t first, int64_t rows)
      : data(head_row<T>(t, b, first, h)), pitch(t.stride(1)), count(rows), width(t.dim(3)) {}
};

/// Rows lie a whole token apart, which the processor's own prefetching does not follow.
template <class T>
LLMZ_INLINE void prefetch_row(const HeadRows<T>& rows, int64_t r) {
  constexpr int64_t kAhead = 16, kLine = 64 / sizeof(T);
  if (r + kAhead >= rows.count) return;
  for (int64_t c = 0; c < rows.width; c += kLine) __builtin_prefetch(rows.data + (r + kAhead) * rows.pitch + c);
}

/// to = scale·from[count, padded width], each row over its divisor if there are divisors.
template <class T>
LLMZ_INLINE void unpack_rows_loop(const HeadRows<T>& to, const float* from, int64_t width, float scale,
                                  const float* divisors) {
  for (int64_t r = 0; r < to.count; ++r) {
    prefetch_row(to, r);
    const float factor = divisors == nullptr ? scale : scale / divisors[r];
    for (int64_t c = 0; c < to.width; ++c) store(to.data + r * to.pitch + c, factor * from[r * width + c]);
  }
}

/// delta[r] = Σ a·b of row r.
template <class A, class T>
LLMZ_INLINE void row_dots_loop(float* delta, const A* a, int64_t a_pitch, const HeadRows<T>& b) {
  for (int64_t r = 0; r < b.count; ++r) {
    prefetch_row(b, r);
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < b.width; ++c) sum += load(a + r * a_pitch + c) * load(b.data + r * b.pitch + c);
    delta[r] = sum;
  }
}

/// The shapes of a call, and its queries cut into tiles.
struct Geometry {
  int64_t batch, queries, heads, keys, kv_heads, group, width, tiles;
  float scale;
  const ops::AttentionMask& mask;
  Geometry(const Tensor& q, const Tensor& k, const ops::AttentionMask& m)
      : batch(q.dim(0)),
        queries(q.dim(1)),
        heads(q.dim(2)),
        keys(k.dim(1)),
        kv_heads(k.dim(2)),
        group(heads / kv_heads),
        width(padded(q.dim(3), 16)),
        tiles(ceil_div(queries, kTile)),
        scale(1 / std::sqrt(static_cast<float>(q.dim(3)))),
        mask(m) {}

  int64_t rows(int64_t tile) const { return std::min(kTile, queries - tile * kTile); }
  QueryTile query_tile(int64_t b, int64_t tile) const {
    QueryTile t;
    const int64_t position = keys - queries + tile * kTile;  // of the first query
    t.rows = rows(tile);
    t.width = width;
    t.limit = counted_keys(mask, b, keys);
    t.visible = mask.causal ? position + 1 : mask.window > 0 ? position + mask.window : keys;
    t.step = mask.causal || mask.window > 0 ? 1 : 0;
    if (mask.window > 0) t.hidden = position - mask.window + 1;
    return t;
  }
  float* lse_row(const Tensor& lse, int64_t b, int64_t h, int64_t tile) const {
    return lse.as<float>() + b * lse.stride(0) + h * lse.stride(1) + tile * kTile;
  }
};

/// body(b, kv, first, last, a thread's workspace) for the query tiles [first, last) of all heads that share key/value
/// head kv of sequence b.
template <class Body>
void for_query_spans(const Geometry& g, const Tensor& q, const Tensor& workspace, const Body& body) {
  // A query row's result does not depend on how the tiles are dealt out, so the number of threads may decide.
  const int64_t wanted = ceil_div(4 * omp_get_max_threads(), std::max<int64_t>(1, g.batch * g.kv_heads));
  const int64_t span = ceil_div(g.tiles, std::min(wanted, g.tiles));
#pragma omp parallel for collapse(3) schedule(dynamic) if (q.numel() * g.keys > kParallelProducts)
  for (int64_t b = 0; b < g.batch; ++b) {
    for (int64_t kv = 0; kv < g.kv_heads; ++kv) {
      for (int64_t first = 0; first < g.tiles; first += span) {
        body(b, kv, first, std::min(first + span, g.tiles),
             workspace.as<float>() + omp_get_thread_num() * workspace.stride(0));
      }
    }
  }
}

/// body(b, kv, a thread's workspace) for each key/value head.
template <class Body>
void for_key_heads(const Geometry& g, const Tensor& q, const Tensor& workspace, const Body& body) {
#pragma omp parallel for collapse(2) schedule(dynamic) if (q.numel() * g.keys > kParallelProducts)
  for (int64_t b = 0; b < g.batch; ++b) {
    for (int64_t kv = 0; kv < g.kv_heads; ++kv) {
      body(b, kv, workspace.as<float>() + omp_get_thread_num() * workspace.stride(0));
    }
  }
}

/// Log-sum-exp of a tile's rows from their largest scores and sums of exponentials, 0 for a row that saw no key; such a
/// row's sum becomes 1, to be divided by.
inline void finish_rows(float* lse, const float* largest, float* total, int64_t rows) {
  for (int64_t r = 0; r < rows; ++r) {
    const bool sees_none = total[r] == 0.0f;
    lse[r] = sees_none ? 0.0f : largest[r] + std::log(total[r]);
    if (sees_none) total[r] = 1.0f;
  }
}

struct BackwardTensors {
  Tensor dq, dk, dv, dout, out, lse, q, k, v;
};

}  // namespace llmz::cpu
