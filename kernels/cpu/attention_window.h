#pragma once

// Which keys of a tile the rows of a query tile see.

#include <cstdint>
#include <limits>

#include "kernels/cpu/attention_tiles.h"
#include "kernels/cpu/tile_gemm.h"

namespace llmz::cpu {

LLMZ_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
LLMZ_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
LLMZ_INLINE int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/// Which part of tile [queries × keys first_key …] is visible.
struct Window {
  int64_t rows, visible, first_key, step, hidden, limit;
  LLMZ_INLINE Window(const QueryTile& t, int64_t first)
      : rows(t.rows), visible(t.visible), first_key(first), step(t.step), hidden(t.hidden), limit(t.limit) {}

  /// Row i sees the tile's keys hidden_keys(i) … keys(i) − 1.
  LLMZ_INLINE int64_t keys(int64_t i) const {
    return larger(0, smaller(kTile, smaller(limit, visible + step * i) - first_key));
  }
  LLMZ_INLINE int64_t hidden_keys(int64_t i) const { return larger(0, smaller(kTile, hidden + i - first_key)); }
  /// Keys of the tile up to the last that some row of the block of rows at i sees.
  LLMZ_INLINE int64_t block_keys(int64_t i) const { return keys(i + kRowBlock - 1); }
  /// The first row that sees as far as key j of the tile.
  LLMZ_INLINE int64_t first_row(int64_t j) const { return step == 0 ? 0 : larger(0, first_key + j - visible + 1); }
};

/// Hides what row i does not see of the tile's first n keys: a score of −∞ has probability 0.
LLMZ_INLINE void mask(float* row, const Window& w, int64_t i, int64_t n,
                      float hidden = -std::numeric_limits<float>::infinity()) {
  for (int64_t j = w.keys(i); j < n; ++j) row[j] = hidden;
  for (int64_t j = 0, end = smaller(n, w.hidden_keys(i)); j < end; ++j) row[j] = hidden;
}

}  // namespace llmz::cpu
