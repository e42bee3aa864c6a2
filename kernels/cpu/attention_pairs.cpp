#include "kernels/cpu/attention_pairs.h"

#include "kernels/cpu/twins.h"

#ifdef __x86_64__

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // gcc 12 warns about its own AVX-512 intrinsics
#endif
#include <immintrin.h>

#include "kernels/cpu/attention_pairs_pack.h"
#include "kernels/cpu/attention_window.h"

#define LLMZ_PAIRS LLMZ_TARGET_AVX512_BF16 LLMZ_INLINE

namespace llmz::cpu {
namespace {

constexpr int64_t kLanes = 16;        // floats, or pairs of bf16, in a register
constexpr int64_t kHalf = kTile / 2;  // pairs in a row of a tile

/// c[4, 16·NV] (+)= a[4, 2·depth] · b[2·depth, 16·NV]. Pair (i, l) of a lies at a[i·a_row + l·a_step]; a row of b holds
/// the pairs of two rows.
template <int NV>
LLMZ_PAIRS void pair_tile(float* c, int64_t c_pitch, const Pair* a, int64_t a_row, int64_t a_step, const Pair* b,
                          int64_t b_pitch, int64_t depth, bool accumulate) {
  __m512 sum[kRowBlock][NV];
#pragma GCC unroll 4
  for (int i = 0; i < kRowBlock; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) {
      sum[i][j] = accumulate ? _mm512_loadu_ps(c + i * c_pitch + j * kLanes) : _mm512_setzero_ps();
    }
  }
  for (int64_t l = 0; l < depth; ++l) {
    __m512bh row[NV];
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) row[j] = (__m512bh)_mm512_loadu_si512(b + j * kLanes);
#pragma GCC unroll 4
    for (int i = 0; i < kRowBlock; ++i) {
      const auto factor = (__m512bh)_mm512_set1_epi32(static_cast<int>(a[i * a_row]));
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) sum[i][j] = _mm512_dpbf16_ps(sum[i][j], factor, row[j]);
    }
    a += a_step;
    b += b_pitch;
  }
#pragma GCC unroll 4
  for (int i = 0; i < kRowBlock; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) _mm512_storeu_ps(c + i * c_pitch + j * kLanes, sum[i][j]);
  }
}

/// c[4, columns] (+)= a[4, 2·depth] · b[2·depth, columns], columns a multiple of kLanes.
LLMZ_PAIRS void pair_block(float* c, int64_t c_pitch, const Pair* a, int64_t a_row, int64_t a_step, const Pair* b,
                           int64_t b_pitch, int64_t depth, int64_t columns, bool accumulate) {
  int64_t j = 0;
  for (; j + 4 * kLanes <= columns; j += 4 * kLanes) {
    pair_tile<4>(c + j, c_pitch, a, a_row, a_step, b + j, b_pitch, depth, accumulate);
  }
  switch ((columns - j) / kLanes) {
    case 3: return pair_tile<3>(c + j, c_pitch, a, a_row, a_step, b + j, b_pitch, depth, accumulate);
    case 2: return pair_tile<2>(c + j, c_pitch, a, a_row, a_step, b + j, b_pitch, depth, accumulate);
    case 1: return pair_tile<1>(c + j, c_pitch, a, a_row, a_step, b + j, b_pitch, depth, accumulate);
    default: return;
  }
}

/// 16 floats, rounded to bf16.
LLMZ_PAIRS __m256i rounded(const float* x) { return (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(x)); }

/// to[0 … 16): pairs of what two rows hold there.
LLMZ_PAIRS void interleave(Pair* to, __m256i first, __m256i second) {
  const __m512i low = _mm512_cvtepu16_epi32(first), high = _mm512_slli_epi32(_mm512_cvtepu16_epi32(second), 16);
  _mm512_storeu_si512(to, _mm512_or_si512(low, high));
}

// Packed operands: q, dout (queries) and k, v (keys), with how they lie: _rows [rows, width/2], _pairs [rows/2, width],
// _t [tile, width/2, kTile]. `scale` is 1/√D.

struct ForwardWork : QueryTile {
  float scale = 1;
  Pair *k_t, *v_pairs, *q_rows, *p;
  float *scores, *sum, *largest, *total, *total_lanes;
  int64_t used;
  ForwardWork(float* base, int64_t keys, int64_t padded_width) {
    Pieces pieces(base);
    width = padded_width;
    const auto take = [&](int64_t n) { return reinterpret_cast<Pair*>(pieces.take(n)); };
    for (Pair** x : {&k_t, &v_pairs}) *x = take(padded(keys, kTile) * width / 2);
    q_rows = take(kTile * width / 2);
    p = take(kTile * kHalf);
    scores = pieces.take(kTile * kTile);
    sum = pieces.take(kTile * width);
    for (float** x : {&largest, &total}) *x = pieces.take(kTile);
    total_lanes = pieces.take(kTile * kLanes);
    used = pieces.used();
  }
};

struct BackwardWork : QueryTile {
  float scale = 1;
  bool make_delta = false;
  Pair *k_t, *v_t, *k_pairs, *q_rows, *q_pairs, *dout_rows, *dout_pairs, *p_pairs, *ds_rows, *ds_pairs;
  float *dk, *dv, *dq, *lse, *delta, *p, *ds;
  int64_t used;
  BackwardWork(float* base, int64_t keys, int64_t padded_width) {
    Pieces pieces(base);
    width = padded_width;
    const auto take = [&](int64_t n) { return reinterpret_cast<Pair*>(pieces.take(n)); };
    for (Pair** x : {&k_t, &v_t, &k_pairs}) *x = take(padded(keys, kTile) * width / 2);
    for (Pair** x : {&q_rows, &q_pairs, &dout_rows, &dout_pairs}) *x = take(kTile * width / 2);
    for (Pair** x : {&p_pairs, &ds_rows, &ds_pairs}) *x = take(kTile * kHalf);
    for (float** x : {&dk, &dv}) *x = pieces.take(padded(keys, kTile) * width);
    dq = pieces.take(kTile * width);
    for (float** x : {&lse, &delta}) *x = pieces.take(kTile);
    for (float** x : {&p, &ds}) *x = pieces.take(kTile * kTile);
    used = pieces.used();
  }
};

/// Columns of a tile that a block of rows computes.
LLMZ_INLINE int64_t block_columns(const Window& w, int64_t i) {
  return round_up(w.block_keys(i / kRowBlock * kRowBlock), kLanes);
}

/// out[i, j] = a_i · b_j wherever a block of rows sees a key, rounded up to whole registers.
LLMZ_PAIRS void scores(float* out, const Pair* rows, const Pair* columns, int64_t width, const Window& w) {
  for (int64_t i = 0; i < w.rows; i += kRowBlock) {
    pair_block(out + i * kTile, kTile, rows + i * width / 2, width / 2, 1, columns, kTile, width / 2,
               block_columns(w, i), false);
  }
}

/// out[i, ·] (+)= Σ_j p[i, j]·b[j, ·] over the keys that row i sees.
LLMZ_PAIRS void add_over_keys(float* out, const Pair* p_rows, const Pair* b_pairs, int64_t width, const Window& w,
                              bool accumulate) {
  for (int64_t i = 0; i < w.rows; i += kRowBlock) {
    pair_block(out + i * width, width, p_rows + i * kHalf, kHalf, 1, b_pairs, width, (w.block_keys(i) + 1) / 2, width,
               accumulate);
  }
}

/// out[j, ·] += Σ_i p[i, j]·b[i, ·] over the rows that see key j.
LLMZ_PAIRS void add_over_queries(float* out, const Pair* p_pairs, const Pair* b_pairs, int64_t width, const Window& w) {
  const int64_t keys = w.keys(w.rows - 1);
  for (int64_t j = 0; j < keys; j += kRowBlock) {
    const int64_t first = w.first_row(j) / 2, end = (w.rows + 1) / 2;
    pair_block(out + j * width, width, p_pairs + first * kTile + j, 1, kTile, b_pairs + first * width, width,
               end - first, width, true);
  }
}

/// Scores of a row become exp(score/√D − largest), in fp32 for their sum and in bf16 as factors; what was summed before
/// is brought to the new largest.
LLMZ_PAIRS void softmax_row(const ForwardWork& t, const Window& w, int64_t i, int64_t n) {
  float* row = t.scores + i * kTile;
  for (int64_t j = 0; j < n; ++j) row[j] *= t.scale;
  mask(row, w, i, n);
  __m512 most = _mm512_loadu_ps(row);
  for (int64_t j = kLanes; j < n; j += kLanes) most = _mm512_max_ps(most, _mm512_loadu_ps(row + j));
  const float here = _mm512_reduce_max_ps(most), top = here > t.largest[i] ? here : t.largest[i];
  for (int64_t j = 0; j < n; ++j) row[j] = exp(row[j] - top);
  const float shrink = exp(t.largest[i] - top);
  t.largest[i] = top;
  for (int64_t c = 0; c < t.width; ++c) t.sum[i * t.width + c] *= shrink;
  float* lanes = t.total_lanes + i * kLanes;
  __m512 total = _mm512_mul_ps(_mm512_loadu_ps(lanes), _mm512_set1_ps(shrink));
  for (int64_t j = 0; j < n; j += kLanes) {
    total = _mm512_add_ps(total, _mm512_loadu_ps(row + j));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(t.p + i * kHalf + j / 2), rounded(row + j));
  }
  _mm512_storeu_ps(lanes, total);
}

LLMZ_TARGET_AVX512_BF16 void forward_tile(const ForwardWork& t) {
  for (int64_t i = 0; i < kTile; ++i) t.largest[i] = std::numeric_limits<float>::lowest();  // finite: less −∞ is no NaN
  for (int64_t i = 0; i < kTile * kLanes; ++i) t.total_lanes[i] = 0;
  for (int64_t i = 0; i < kTile * t.width; ++i) t.sum[i] = 0;
  for (int64_t first = t.begin(); first < t.end(); first += kTile) {
    const Window w(t, first);
    scores(t.scores, t.q_rows, t.k_t + first * t.width / 2, t.width, w);
    for (int64_t i = 0; i < round_up(t.rows, kRowBlock); ++i) {
      const int64_t n = block_columns(w, i);
      if (n > 0) softmax_row(t, w, i, n);
    }
    add_over_keys(t.sum, t.p, t.v_pairs + first * t.width / 2, t.width, w, true);
  }
  for (int64_t i = 0; i < t.rows; ++i) t.total[i] = _mm512_reduce_add_ps(_mm512_loadu_ps(t.total_lanes + i * kLanes));
}

/// t.p = exp(scores/√D − lse), 0 where a key is not seen; t.ds = dout·v: one tile of keys.
LLMZ_PAIRS void probabilities(const BackwardWork& t, int64_t first, const Window& w) {
  scores(t.p, t.q_rows, t.k_t + first * t.width / 2, t.width, w);
  scores(t.ds, t.dout_rows, t.v_t + first * t.width / 2, t.width, w);
  for (int64_t i = 0; i < round_up(t.rows, kRowBlock); ++i) {
    float* p = t.p + i * kTile;
    const int64_t n = block_columns(w, i);
    const float scale = t.scale, lse = t.lse[i];
    for (int64_t j = 0; j < n; ++j) p[j] = exp(scale * p[j] - lse);
    mask(p, w, i, n, 0.0f);
  }
}

LLMZ_PAIRS void add_to_delta(const BackwardWork& t) {
  for (int64_t first = t.begin(); first < t.end(); first += kTile) {
    const Window w(t, first);
    probabilities(t, first, w);
    for (int64_t i = 0; i < t.rows; ++i) {
      const int64_t n = block_columns(w, i);
      __m512 sum = _mm512_setzero_ps();
      for (int64_t j = 0; j < n; j += kLanes) {
        sum = _mm512_fmadd_ps(_mm512_loadu_ps(t.p + i * kTile + j), _mm512_loadu_ps(t.ds + i * kTile + j), sum);
      }
      t.delta[i] += _mm512_reduce_add_ps(sum);
    }
  }
}

/// p and ds of a tile as factors: ds by rows for dq, both as pairs of rows for dk and dv.
LLMZ_PAIRS void round_factors(const BackwardWork& t, const Window& w) {
  for (int64_t i = 0; i < round_up(t.rows, kRowBlock); i += 2) {
    const int64_t n = block_columns(w, i);
    const float *p = t.p + i * kTile, *ds = t.ds + i * kTile;
    for (int64_t j = 0; j < n; j += kLanes) {
      interleave(t.p_pairs + i / 2 * kTile + j, rounded(p + j), rounded(p + kTile + j));
      const __m256i above = rounded(ds + j), below = rounded(ds + kTile + j);
      interleave(t.ds_pairs + i / 2 * kTile + j, above, below);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(t.ds_rows + i * kHalf + j / 2), above);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(t.ds_rows + (i + 1) * kHalf + j / 2), below);
    }
  }
}

LLMZ_TARGET_AVX512_BF16 void backward_tile(const BackwardWork& t) {
  if (t.make_delta) add_to_delta(t);
  if (t.begin() >= t.end()) std::fill_n(t.dq, kTile * t.width, 0.0f);
  for (int64_t first = t.begin(); first < t.end(); first += kTile) {
    const Window w(t, first);
    probabilities(t, first, w);
    for (int64_t i = 0; i < round_up(t.rows, kRowBlock); ++i) {
      const float *p = t.p + i * kTile, delta = t.delta[i];
      float* ds = t.ds + i * kTile;
      for (int64_t j = 0, n = block_columns(w, i); j < n; ++j) ds[j] = p[j] * (ds[j] - delta);
    }
    round_factors(t, w);
    add_over_queries(t.dv + first * t.width, t.p_pairs, t.dout_pairs, t.width, w);
    add_over_queries(t.dk + first * t.width, t.ds_pairs, t.q_pairs, t.width, w);
    add_over_keys(t.dq, t.ds_rows, t.k_pairs + first * t.width / 2, t.width, w, first > t.begin());
  }
}

void forward_group(const Tensor& out, const Tensor& lse, const Tensor& q, const Tensor& k, const Tensor& v,
                   const Geometry& g, int64_t b, int64_t kv, int64_t first, int64_t last, float* workspace) {
  ForwardWork work(workspace, g.keys, g.width);
  const int64_t keys = std::max<int64_t>(0, g.query_tile(b, last - 1).end());
  work.scale = g.scale;
  simd<pack_columns>(work.k_t, Bf16Rows(k, b, kv, 0, keys), g.width);
  simd<pack_pairs>(work.v_pairs, Bf16Rows(v, b, kv, 0, keys), padded(keys, kTile), g.width);
  for (int64_t h = kv * g.group; h < (kv + 1) * g.group; ++h) {
    for (int64_t i = first; i < last; ++i) {
      static_cast<QueryTile&>(work) = g.query_tile(b, i);
      simd<pack_rows>(work.q_rows, Bf16Rows(q, b, h, i * kTile, work.rows), kTile, g.width);
      forward_tile(work);
      finish_rows(g.lse_row(lse, b, h, i), work.largest, work.total, work.rows);
      simd<unpack_rows_loop<bf16>>(Bf16Rows(out, b, h, i * kTile, work.rows), work.sum, g.width, 1.0f, work.total);
    }
  }
}

/// One key/value head and all query heads that read it, in order: the sums dk and dv are this thread's own.
void backward_group(const BackwardTensors& x, const Geometry& g, int64_t b, int64_t kv, float* workspace) {
  BackwardWork work(workspace, g.keys, g.width);
  const int64_t padded_keys = padded(g.keys, kTile);
  work.scale = g.scale;
  work.make_delta = !x.out.present();
  simd<pack_columns>(work.k_t, Bf16Rows(x.k, b, kv, 0, g.keys), g.width);
  simd<pack_columns>(work.v_t, Bf16Rows(x.v, b, kv, 0, g.keys), g.width);
  simd<pack_pairs>(work.k_pairs, Bf16Rows(x.k, b, kv, 0, g.keys), padded_keys, g.width);
  for (float* sum : {work.dk, work.dv}) std::fill_n(sum, padded_keys * g.width, 0.0f);
  for (int64_t h = kv * g.group; h < (kv + 1) * g.group; ++h) {
    for (int64_t i = 0; i < g.tiles; ++i) {
      static_cast<QueryTile&>(work) = g.query_tile(b, i);
      const auto rows_of = [&](const Tensor& t) { return Bf16Rows(t, b, h, i * kTile, work.rows); };
      const Bf16Rows q = rows_of(x.q), dout = rows_of(x.dout);
      simd<pack_rows>(work.q_rows, q, kTile, g.width);
      simd<pack_pairs>(work.q_pairs, q, kTile, g.width);
      simd<pack_rows>(work.dout_rows, dout, kTile, g.width);
      simd<pack_pairs>(work.dout_pairs, dout, kTile, g.width);
      for (float* statistic : {work.lse, work.delta}) std::fill_n(statistic, kTile, 0.0f);
      if (x.out.present()) simd<row_dots_loop<bf16, bf16>>(work.delta, dout.data, dout.pitch, rows_of(x.out));
      std::copy_n(g.lse_row(x.lse, b, h, i), work.rows, work.lse);
      backward_tile(work);
      simd<unpack_rows_loop<bf16>>(rows_of(x.dq), work.dq, g.width, g.scale, nullptr);
    }
  }
  simd<unpack_rows_loop<bf16>>(Bf16Rows(x.dk, b, kv, 0, g.keys), work.dk, g.width, g.scale, nullptr);
  simd<unpack_rows_loop<bf16>>(Bf16Rows(x.dv, b, kv, 0, g.keys), work.dv, g.width, 1.0f, nullptr);
}

}  // namespace

bool multiplies_pairs() { return isa() == Isa::avx512 && multiplies_bf16(); }

int64_t pairs_forward_workspace(const Tensor& q, const Tensor& k) {
  return ForwardWork(nullptr, k.dim(1), padded(q.dim(3), kLanes)).used;
}

int64_t pairs_backward_workspace(const Tensor& q, const Tensor& k) {
  return BackwardWork(nullptr, k.dim(1), padded(q.dim(3), kLanes)).used;
}

void pairs_forward(const Tensor& out, const Tensor& lse, const Tensor& q, const Tensor& k, const Tensor& v,
                   const ops::AttentionMask& mask, const Tensor& workspace) {
  const Geometry g(q, k, mask);
  for_query_spans(g, q, workspace, [&](int64_t b, int64_t kv, int64_t first, int64_t last, float* space) {
    forward_group(out, lse, q, k, v, g, b, kv, first, last, space);
  });
}

void pairs_backward(const BackwardTensors& x, const ops::AttentionMask& mask, const Tensor& workspace) {
  const Geometry g(x.q, x.k, mask);
  for_key_heads(g, x.q, workspace, [&](int64_t b, int64_t kv, float* space) { backward_group(x, g, b, kv, space); });
}

}  // namespace llmz::cpu

#else

namespace llmz::cpu {

bool multiplies_pairs() { return false; }
int64_t pairs_forward_workspace(const Tensor&, const Tensor&) { return 0; }
int64_t pairs_backward_workspace(const Tensor&, const Tensor&) { return 0; }
void pairs_forward(const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const ops::AttentionMask&,
                   const Tensor&) {}
void pairs_backward(const BackwardTensors&, const ops::AttentionMask&, const Tensor&) {}

}  // namespace llmz::cpu

#endif
