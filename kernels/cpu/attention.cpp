#include <omp.h>

#include <algorithm>
#include <cmath>

#include "kernels/cpu/attention_rows.h"
#include "kernels/cpu/attention_tiles.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/twins.h"

namespace llmz::cpu {
namespace {

constexpr int64_t kFewQueries = 8;  // fewer than that and packing the keys costs more than it saves

int64_t padded(int64_t n, int64_t to) { return ceil_div(n, to) * to; }

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

struct ForwardPieces {
  float *k_t, *v, *q, *scores, *sum, *largest, *total, *total_lanes;
  int64_t used;
  ForwardPieces(float* base, int64_t keys, int64_t width) {
    Pieces pieces(base);
    for (float** p : {&k_t, &v}) *p = pieces.take(padded(keys, kTile) * width);
    for (float** p : {&q, &sum}) *p = pieces.take(kTile * width);
    for (float** p : {&largest, &total}) *p = pieces.take(kTile);
    total_lanes = pieces.take(kTile * kTotalLanes);
    scores = pieces.take(kTile * kTile);
    used = pieces.used();
  }
};

struct BackwardPieces {
  float *k_t, *v_t, *k, *dk, *dv, *q, *dout, *dq, *lse, *delta, *p, *ds;
  int64_t used;
  BackwardPieces(float* base, int64_t keys, int64_t width) {
    Pieces pieces(base);
    for (float** p_ : {&k_t, &v_t, &k, &dk, &dv}) *p_ = pieces.take(padded(keys, kTile) * width);
    for (float** p_ : {&q, &dout, &dq}) *p_ = pieces.take(kTile * width);
    for (float** p_ : {&lse, &delta}) *p_ = pieces.take(kTile);
    for (float** p_ : {&p, &ds}) *p_ = pieces.take(kTile * kTile);
    used = pieces.used();
  }
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

/// to[padded count, padded width] = scale·from, zeros around it.
template <class T>
LLMZ_INLINE void pack_rows_loop(float* to, const HeadRows<T>& from, int64_t rows, int64_t width, float scale) {
  for (int64_t r = 0; r < rows; ++r) {
    float* row = to + r * width;
    const T* source = from.data + r * from.pitch;
    prefetch_row(from, r);
    const int64_t filled = r < from.count ? from.width : 0;
    for (int64_t c = 0; c < filled; ++c) row[c] = scale * load(source + c);
    for (int64_t c = filled; c < width; ++c) row[c] = 0;
  }
}

/// to[tile, width, kTile]: the rows as columns, kTile of them side by side, zeros around them.
template <class T>
LLMZ_INLINE void pack_columns_loop(float* to, const HeadRows<T>& from, int64_t width) {
  for (int64_t first = 0; first < from.count; first += kTile, to += width * kTile) {
    const int64_t columns = from.count - first < kTile ? from.count - first : kTile;
    if (columns < kTile || from.width < width) {
      for (int64_t i = 0; i < width * kTile; ++i) to[i] = 0;
    }
    for (int64_t j = 0; j < columns; ++j) {
      const T* source = from.data + (first + j) * from.pitch;
      prefetch_row(from, first + j);
      for (int64_t c = 0; c < from.width; ++c) to[c * kTile + j] = load(source + c);
    }
  }
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
template <class T>
LLMZ_INLINE void row_dots_loop(float* delta, const float* a, int64_t a_pitch, const HeadRows<T>& b) {
  for (int64_t r = 0; r < b.count; ++r) {
    prefetch_row(b, r);
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < b.width; ++c) sum += a[r * a_pitch + c] * load(b.data + r * b.pitch + c);
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

/// The query tiles [first, last) of all heads that share one key/value head.
template <class T>
void forward_group(const Tensor& out, const Tensor& lse, const Tensor& q, const Tensor& k, const Tensor& v,
                   const Geometry& g, int64_t b, int64_t kv, int64_t first, int64_t last, float* workspace) {
  const AttentionTiles kernels = attention_tiles();
  const ForwardPieces space(workspace, g.keys, g.width);
  const int64_t keys = std::max<int64_t>(0, g.query_tile(b, last - 1).end());
  simd<pack_columns_loop<T>>(space.k_t, HeadRows<T>(k, b, kv, 0, keys), g.width);
  simd<pack_rows_loop<T>>(space.v, HeadRows<T>(v, b, kv, 0, keys), padded(keys, kTile), g.width, 1.0f);
  for (int64_t h = kv * g.group; h < (kv + 1) * g.group; ++h) {
    for (int64_t i = first; i < last; ++i) {
      ForwardTile tile{g.query_tile(b, i)};
      simd<pack_rows_loop<T>>(space.q, HeadRows<T>(q, b, h, i * kTile, tile.rows), kTile, g.width, g.scale);
      tile.q = space.q;
      tile.k_t = space.k_t;
      tile.v = space.v;
      tile.scores = space.scores;
      tile.sum = space.sum;
      tile.largest = space.largest;
      tile.total = space.total;
      tile.total_lanes = space.total_lanes;
      kernels.forward(tile);
      float* log_sum = g.lse_row(lse, b, h, i);
      for (int64_t r = 0; r < tile.rows; ++r) {
        const bool sees_none = space.total[r] == 0.0f;
        log_sum[r] = sees_none ? 0.0f : space.largest[r] + std::log(space.total[r]);
        if (sees_none) space.total[r] = 1.0f;
      }
      simd<unpack_rows_loop<T>>(HeadRows<T>(out, b, h, i * kTile, tile.rows), space.sum, g.width, 1.0f, space.total);
    }
  }
}

template <class T>
void forward_as(const Tensor& out, const Tensor& lse, const Tensor& q, const Tensor& k, const Tensor& v,
                const ops::AttentionMask& mask, const Tensor& workspace) {
  const Geometry g(q, k, mask);
  // A query row's result does not depend on how the tiles are dealt out, so the number of threads may decide.
  const int64_t wanted = ceil_div(4 * omp_get_max_threads(), std::max<int64_t>(1, g.batch * g.kv_heads));
  const int64_t span = ceil_div(g.tiles, std::min(wanted, g.tiles));
#pragma omp parallel for collapse(3) schedule(dynamic) if (q.numel() * g.keys > kParallelProducts)
  for (int64_t b = 0; b < g.batch; ++b) {
    for (int64_t kv = 0; kv < g.kv_heads; ++kv) {
      for (int64_t first = 0; first < g.tiles; first += span) {
        float* space = workspace.as<float>() + omp_get_thread_num() * workspace.stride(0);
        forward_group<T>(out, lse, q, k, v, g, b, kv, first, std::min(first + span, g.tiles), space);
      }
    }
  }
}

struct BackwardTensors {
  Tensor dq, dk, dv, dout, out, lse, q, k, v;
};

/// One key/value head and all query heads that read it, in order: the sums dk and dv are this thread's own.
template <class T>
void backward_group(const BackwardTensors& x, const Geometry& g, int64_t b, int64_t kv, float* workspace) {
  const AttentionTiles kernels = attention_tiles();
  const BackwardPieces space(workspace, g.keys, g.width);
  const int64_t padded_keys = padded(g.keys, kTile);
  simd<pack_columns_loop<T>>(space.k_t, HeadRows<T>(x.k, b, kv, 0, g.keys), g.width);
  simd<pack_columns_loop<T>>(space.v_t, HeadRows<T>(x.v, b, kv, 0, g.keys), g.width);
  simd<pack_rows_loop<T>>(space.k, HeadRows<T>(x.k, b, kv, 0, g.keys), padded_keys, g.width, 1.0f);
  std::fill_n(space.dk, padded_keys * g.width, 0.0f);
  std::fill_n(space.dv, padded_keys * g.width, 0.0f);
  for (int64_t h = kv * g.group; h < (kv + 1) * g.group; ++h) {
    for (int64_t i = 0; i < g.tiles; ++i) {
      BackwardTile tile{g.query_tile(b, i)};
      const auto rows_of = [&](const Tensor& t) { return HeadRows<T>(t, b, h, i * kTile, tile.rows); };
      simd<pack_rows_loop<T>>(space.dout, rows_of(x.dout), kTile, g.width, 1.0f);
      simd<pack_rows_loop<T>>(space.q, rows_of(x.q), kTile, g.width, g.scale);
      for (float* statistic : {space.lse, space.delta}) std::fill_n(statistic, kTile, 0.0f);
      tile.make_delta = !x.out.present();
      if (x.out.present()) simd<row_dots_loop<T>>(space.delta, space.dout, g.width, rows_of(x.out));
      std::copy_n(g.lse_row(x.lse, b, h, i), tile.rows, space.lse);
      tile.q = space.q;
      tile.k_t = space.k_t;
      tile.k = space.k;
      tile.v_t = space.v_t;
      tile.dout = space.dout;
      tile.lse = space.lse;
      tile.delta = space.delta;
      tile.p = space.p;
      tile.ds = space.ds;
      tile.dq = space.dq;
      tile.dk = space.dk;
      tile.dv = space.dv;
      kernels.backward(tile);
      simd<unpack_rows_loop<T>>(rows_of(x.dq), space.dq, g.width, g.scale, nullptr);
    }
  }
  simd<unpack_rows_loop<T>>(HeadRows<T>(x.dk, b, kv, 0, g.keys), space.dk, g.width, 1.0f, nullptr);
  simd<unpack_rows_loop<T>>(HeadRows<T>(x.dv, b, kv, 0, g.keys), space.dv, g.width, 1.0f, nullptr);
}

template <class T>
void backward_as(const BackwardTensors& x, const ops::AttentionMask& mask, const Tensor& workspace) {
  const Geometry g(x.q, x.k, mask);
#pragma omp parallel for collapse(2) schedule(dynamic) if (x.q.numel() * g.keys > kParallelProducts)
  for (int64_t b = 0; b < g.batch; ++b) {
    for (int64_t kv = 0; kv < g.kv_heads; ++kv) {
      backward_group<T>(x, g, b, kv, workspace.as<float>() + omp_get_thread_num() * workspace.stride(0));
    }
  }
}

bool by_rows(const Tensor& q) { return q.dtype == DType::f64 || q.dim(1) < kFewQueries; }

}  // namespace

Shape attention_forward_workspace(const Tensor& q, const Tensor& k) {
  const int64_t elements =
      by_rows(q) ? rows_forward_workspace(q, k) : ForwardPieces(nullptr, k.dim(1), padded(q.dim(3), 16)).used;
  return {omp_get_max_threads(), elements};
}

Shape attention_backward_workspace(const Tensor& q, const Tensor& k) {
  const int64_t elements = q.dtype == DType::f64 ? rows_backward_workspace(q, k)
                                                 : BackwardPieces(nullptr, k.dim(1), padded(q.dim(3), 16)).used;
  return {omp_get_max_threads(), elements};
}

void attention_forward(Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v, const ops::AttentionMask& mask,
                       Tensor workspace) {
  if (q.numel() == 0) return;
  if (by_rows(q)) return rows_forward(out, lse, q, k, v, mask, workspace);
  if (q.dtype == DType::bf16) return forward_as<bf16>(out, lse, q, k, v, mask, workspace);
  forward_as<float>(out, lse, q, k, v, mask, workspace);
}

void attention_backward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out, Tensor lse, Tensor q, Tensor k,
                        Tensor v, const ops::AttentionMask& mask, Tensor workspace) {
  if (q.dtype == DType::f64) return rows_backward(dq, dk, dv, dout, out, lse, q, k, v, mask, workspace);
  const BackwardTensors tensors{dq, dk, dv, dout, out, lse, q, k, v};
  if (q.dtype == DType::bf16) return backward_as<bf16>(tensors, mask, workspace);
  backward_as<float>(tensors, mask, workspace);
}

}  // namespace llmz::cpu
