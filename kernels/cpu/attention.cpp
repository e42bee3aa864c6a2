#include <omp.h>

#include <algorithm>

#include "kernels/cpu/attention_geometry.h"
#include "kernels/cpu/attention_pairs.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/twins.h"

namespace llmz::cpu {
namespace {

constexpr int64_t kFewQueries = 8;  // fewer than that and packing the keys costs more than it saves

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
      finish_rows(g.lse_row(lse, b, h, i), space.largest, space.total, tile.rows);
      simd<unpack_rows_loop<T>>(HeadRows<T>(out, b, h, i * kTile, tile.rows), space.sum, g.width, 1.0f, space.total);
    }
  }
}

template <class T>
void forward_as(const Tensor& out, const Tensor& lse, const Tensor& q, const Tensor& k, const Tensor& v,
                const ops::AttentionMask& mask, const Tensor& workspace) {
  const Geometry g(q, k, mask);
  for_query_spans(g, q, workspace, [&](int64_t b, int64_t kv, int64_t first, int64_t last, float* space) {
    forward_group<T>(out, lse, q, k, v, g, b, kv, first, last, space);
  });
}

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
      if (x.out.present()) simd<row_dots_loop<float, T>>(space.delta, space.dout, g.width, rows_of(x.out));
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
  for_key_heads(g, x.q, workspace, [&](int64_t b, int64_t kv, float* space) { backward_group<T>(x, g, b, kv, space); });
}

bool by_rows(const Tensor& q) { return q.dtype == DType::f64 || q.dim(1) < kFewQueries; }
bool by_pairs(const Tensor& q) { return q.dtype == DType::bf16 && multiplies_pairs(); }

}  // namespace

Shape attention_forward_workspace(const Tensor& q, const Tensor& k) {
  const int64_t elements = by_rows(q)    ? rows_forward_workspace(q, k)
                           : by_pairs(q) ? pairs_forward_workspace(q, k)
                                         : ForwardPieces(nullptr, k.dim(1), padded(q.dim(3), 16)).used;
  return {omp_get_max_threads(), elements};
}

Shape attention_backward_workspace(const Tensor& q, const Tensor& k) {
  const int64_t elements = q.dtype == DType::f64 ? rows_backward_workspace(q, k)
                           : by_pairs(q)         ? pairs_backward_workspace(q, k)
                                                 : BackwardPieces(nullptr, k.dim(1), padded(q.dim(3), 16)).used;
  return {omp_get_max_threads(), elements};
}

void attention_forward(Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v, const ops::AttentionMask& mask,
                       Tensor workspace) {
  if (q.numel() == 0) return;
  if (by_rows(q)) return rows_forward(out, lse, q, k, v, mask, workspace);
  if (by_pairs(q)) return pairs_forward(out, lse, q, k, v, mask, workspace);
  if (q.dtype == DType::bf16) return forward_as<bf16>(out, lse, q, k, v, mask, workspace);
  forward_as<float>(out, lse, q, k, v, mask, workspace);
}

void attention_backward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out, Tensor lse, Tensor q, Tensor k,
                        Tensor v, const ops::AttentionMask& mask, Tensor workspace) {
  if (q.dtype == DType::f64) return rows_backward(dq, dk, dv, dout, out, lse, q, k, v, mask, workspace);
  const BackwardTensors tensors{dq, dk, dv, dout, out, lse, q, k, v};
  if (by_pairs(q)) return pairs_backward(tensors, mask, workspace);
  if (q.dtype == DType::bf16) return backward_as<bf16>(tensors, mask, workspace);
  backward_as<float>(tensors, mask, workspace);
}

}  // namespace llmz::cpu
