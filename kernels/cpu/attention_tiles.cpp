#include "kernels/cpu/attention_tiles.h"

#include <algorithm>
#include <limits>

#include "kernels/cpu/attention_window.h"
#include "kernels/cpu/tile_gemm.h"

namespace llmz::cpu {
namespace {

/// out[i, j] = Σ a[i, ·]·b_t[·, j] wherever a block of rows sees a key, rounded up to whole column steps.
template <int W>
LLMZ_INLINE void scores(float* out, const float* a, const float* b_t, int64_t width, const Window& w) {
  for (int64_t i = 0; i < w.rows; i += kRowBlock) {
    row_block<W>(out + i * kTile, kTile, a + i * width, width, 1, b_t, kTile, width,
                 round_up(w.block_keys(i), kColumnStep), false);
  }
}

/// out[i, ·] (+)= Σ_j p[i, j]·b[j, ·] over the keys that row i sees.
template <int W>
LLMZ_INLINE void add_over_keys(float* out, const float* p, const float* b, int64_t width, const Window& w,
                               bool accumulate) {
  for (int64_t i = 0; i < w.rows; i += kRowBlock) {
    row_block<W>(out + i * width, width, p + i * kTile, kTile, 1, b, width, w.block_keys(i), width, accumulate);
  }
}

/// out[j, ·] += Σ_i p[i, j]·b[i, ·] over the rows that see key j.
template <int W>
LLMZ_INLINE void add_over_queries(float* out, const float* p, const float* b, int64_t width, const Window& w) {
  const int64_t keys = w.keys(w.rows - 1);
  for (int64_t j = 0; j < keys; j += kRowBlock) {
    const int64_t i = w.first_row(j);
    row_block<W>(out + j * width, width, p + i * kTile + j, 1, kTile, b + i * width, width, w.rows - i, width, true);
  }
}

/// Joins W lanes, in quarters first: a short chain of dependent operations.
template <int W, bool kLargest>
LLMZ_INLINE float join_lanes(const float* lanes) {
  using V = typename Vector<4>::Type;
  V four = *reinterpret_cast<const V*>(lanes);
  for (int i = 4; i < W; i += 4) {
    const V next = *reinterpret_cast<const V*>(lanes + i);
    if constexpr (kLargest) {
      four = next > four ? next : four;
    } else {
      four += next;
    }
  }
  if constexpr (kLargest) {
    const float left = four[0] > four[1] ? four[0] : four[1], right = four[2] > four[3] ? four[2] : four[3];
    return left > right ? left : right;
  } else {
    return (four[0] + four[1]) + (four[2] + four[3]);
  }
}

/// The largest of x[0 … n) and `least`; n a multiple of kColumnStep.
template <int W>
LLMZ_INLINE float row_max(const float* x, int64_t n, float least) {
  using V = typename Vector<W>::Type;
  V most = *reinterpret_cast<const V*>(x);
  for (int64_t j = W; j < n; j += W) {
    const V next = *reinterpret_cast<const V*>(x + j);
    most = next > most ? next : most;
  }
  float lanes[W];
  *reinterpret_cast<V*>(lanes) = most;
  const float top = join_lanes<W, true>(lanes);
  return top > least ? top : least;
}

/// Turns the scores of a block of rows, n > 0 each, into exp(score − largest) and brings what was summed before to the
/// new largest. Step by step over all rows: their chains of dependent operations overlap.
template <int W>
LLMZ_INLINE void softmax_block(const ForwardTile& t, int64_t first_row, int64_t n) {
  using V = typename Vector<W>::Type;
  float top[kRowBlock];
  for (int64_t r = 0; r < kRowBlock; ++r) {
    top[r] = row_max<W>(t.scores + (first_row + r) * kTile, n, t.largest[first_row + r]);
  }
  for (int64_t r = 0; r < kRowBlock; ++r) {
    const int64_t i = first_row + r;
    float* row = t.scores + i * kTile;
    for (int64_t j = 0; j < n; ++j) row[j] = exp(row[j] - top[r]);
    const float shrink = exp(t.largest[i] - top[r]);
    t.largest[i] = top[r];
    for (int64_t c = 0; c < t.width; ++c) t.sum[i * t.width + c] *= shrink;
    V* total = reinterpret_cast<V*>(t.total_lanes + i * kTotalLanes);
    V added = *total * shrink;
    for (int64_t j = 0; j < n; j += W) added += *reinterpret_cast<const V*>(row + j);
    *total = added;
  }
}

template <int W>
LLMZ_INLINE void forward(const ForwardTile& t) {
  static_assert(W <= kTotalLanes);
  for (int64_t i = 0; i < kTile; ++i) t.largest[i] = std::numeric_limits<float>::lowest();  // finite: less −∞ is no NaN
  for (int64_t i = 0; i < kTile * kTotalLanes; ++i) t.total_lanes[i] = 0;
  for (int64_t i = 0; i < kTile * t.width; ++i) t.sum[i] = 0;
  for (int64_t first = t.begin(); first < t.end(); first += kTile) {
    const Window w(t, first);
    scores<W>(t.scores, t.q, t.k_t + first * t.width, t.width, w);
    for (int64_t i = 0; i < t.rows; i += kRowBlock) {
      const int64_t n = round_up(w.block_keys(i), kColumnStep);
      if (n == 0) continue;
      for (int64_t r = i; r < i + kRowBlock; ++r) mask(t.scores + r * kTile, w, r, n);
      softmax_block<W>(t, i, n);
    }
    add_over_keys<W>(t.sum, t.scores, t.v + first * t.width, t.width, w, true);
  }
  for (int64_t i = 0; i < t.rows; ++i) t.total[i] = join_lanes<W, false>(t.total_lanes + i * kTotalLanes);
}

/// t.p = exp(scores − lse), 0 where a key is not seen; t.ds = dout·v: one tile of keys.
template <int W>
LLMZ_INLINE void probabilities(const BackwardTile& t, int64_t first, const Window& w) {
  scores<W>(t.p, t.q, t.k_t + first * t.width, t.width, w);
  scores<W>(t.ds, t.dout, t.v_t + first * t.width, t.width, w);
  for (int64_t i = 0; i < round_up(t.rows, kRowBlock); ++i) {
    float* p = t.p + i * kTile;
    const int64_t n = round_up(w.block_keys(i / kRowBlock * kRowBlock), kColumnStep);
    const float lse = t.lse[i];
    mask(p, w, i, n);
    for (int64_t j = 0; j < n; ++j) p[j] = exp(p[j] - lse);
  }
}

template <int W>
LLMZ_INLINE void make_delta(const BackwardTile& t) {
  using V = typename Vector<W>::Type;
  for (int64_t i = 0; i < kTile; ++i) t.delta[i] = 0;
  for (int64_t first = t.begin(); first < t.end(); first += kTile) {
    const Window w(t, first);
    probabilities<W>(t, first, w);
    for (int64_t i = 0; i < t.rows; ++i) {
      const int64_t n = round_up(w.block_keys(i / kRowBlock * kRowBlock), kColumnStep);
      V sum = {};
      for (int64_t j = 0; j < n; j += W) {
        sum += *reinterpret_cast<const V*>(t.p + i * kTile + j) * *reinterpret_cast<const V*>(t.ds + i * kTile + j);
      }
      alignas(64) float lanes[W];
      *reinterpret_cast<V*>(lanes) = sum;
      t.delta[i] += join_lanes<W, false>(lanes);
    }
  }
}

template <int W>
LLMZ_INLINE void backward(const BackwardTile& t) {
  if (t.make_delta) make_delta<W>(t);
  if (t.begin() >= t.end()) std::fill_n(t.dq, kTile * t.width, 0.0f);
  for (int64_t first = t.begin(); first < t.end(); first += kTile) {
    const Window w(t, first);
    scores<W>(t.p, t.q, t.k_t + first * t.width, t.width, w);
    scores<W>(t.ds, t.dout, t.v_t + first * t.width, t.width, w);
    for (int64_t i = 0; i < round_up(t.rows, kRowBlock); ++i) {
      float* p = t.p + i * kTile;
      float* ds = t.ds + i * kTile;
      const int64_t n = round_up(w.block_keys(i / kRowBlock * kRowBlock), kColumnStep);
      const float lse = t.lse[i], delta = t.delta[i];
      mask(p, w, i, n);
      for (int64_t j = 0; j < n; ++j) {
        p[j] = exp(p[j] - lse);
        ds[j] = p[j] * (ds[j] - delta);
      }
    }
    add_over_queries<W>(t.dv + first * t.width, t.p, t.dout, t.width, w);
    add_over_queries<W>(t.dk + first * t.width, t.ds, t.q, t.width, w);
    add_over_keys<W>(t.dq, t.ds, t.k + first * t.width, t.width, w, first > t.begin());
  }
}

void forward_base(const ForwardTile& t) { forward<4>(t); }
void backward_base(const BackwardTile& t) { backward<4>(t); }

#ifdef __x86_64__
LLMZ_TARGET_AVX2 void forward_avx2(const ForwardTile& t) { forward<8>(t); }
LLMZ_TARGET_AVX2 void backward_avx2(const BackwardTile& t) { backward<8>(t); }
LLMZ_TARGET_AVX512 void forward_avx512(const ForwardTile& t) { forward<16>(t); }
LLMZ_TARGET_AVX512 void backward_avx512(const BackwardTile& t) { backward<16>(t); }
#endif

}  // namespace

AttentionTiles attention_tiles([[maybe_unused]] Isa set) {
#ifdef __x86_64__
  if (set == Isa::avx512) return {forward_avx512, backward_avx512};
  if (set == Isa::avx2) return {forward_avx2, backward_avx2};
#endif
  return {forward_base, backward_base};
}

}  // namespace llmz::cpu
