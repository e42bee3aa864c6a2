#pragma once

// How attention_pairs.cpp lays out rows of bf16 for products of pairs. Loops for simd<…>.

#include "kernels/cpu/attention_geometry.h"
#include "kernels/cpu/attention_window.h"

namespace llmz::cpu {

using Pair = uint32_t;  // two bf16, the first in the low half
using Bf16Rows = HeadRows<bf16>;

LLMZ_INLINE Pair join(bf16 first, bf16 second) {
  return static_cast<Pair>(first.bits) | static_cast<Pair>(second.bits) << 16;
}

/// to[rows, width/2]: each row's own pairs, zeros after its end and after the last row.
LLMZ_INLINE void pack_rows(Pair* to, const Bf16Rows& from, int64_t rows, int64_t width) {
  for (int64_t r = 0; r < rows; ++r, to += width / 2) {
    const bf16* x = from.data + r * from.pitch;
    const int64_t filled = r < from.count ? from.width : 0;
    for (int64_t c = 0; c < filled / 2; ++c) to[c] = join(x[2 * c], x[2 * c + 1]);
    for (int64_t c = filled / 2; c < width / 2; ++c) to[c] = 0;
    if (filled % 2 != 0) to[filled / 2] = join(x[filled - 1], {});
  }
}

/// to[rows/2, width]: pairs of elements one above the other, zeros around them; `rows` even.
LLMZ_INLINE void pack_pairs(Pair* to, const Bf16Rows& from, int64_t rows, int64_t width) {
  for (int64_t r = 0; r < rows; r += 2, to += width) {
    const bf16 *x = from.data + r * from.pitch, *below = x + from.pitch;
    prefetch_row(from, r);
    prefetch_row(from, r + 1);
    const int64_t filled = r < from.count ? from.width : 0;
    if (r + 1 < from.count) {
      for (int64_t c = 0; c < filled; ++c) to[c] = join(x[c], below[c]);
    } else {
      for (int64_t c = 0; c < filled; ++c) to[c] = join(x[c], {});
    }
    for (int64_t c = filled; c < width; ++c) to[c] = 0;
  }
}

/// to[tile, width/2, kTile]: rows as columns, each column of pairs; zeros around them.
LLMZ_INLINE void pack_columns(Pair* to, const Bf16Rows& from, int64_t width) {
  for (int64_t first = 0; first < from.count; first += kTile, to += width / 2 * kTile) {
    const int64_t columns = smaller(kTile, from.count - first);
    if (columns < kTile || from.width < width) {
      for (int64_t i = 0; i < width / 2 * kTile; ++i) to[i] = 0;
    }
    for (int64_t j = 0; j < columns; ++j) {
      const bf16* x = from.data + (first + j) * from.pitch;
      prefetch_row(from, first + j);
      for (int64_t c = 0; c < from.width / 2; ++c) to[c * kTile + j] = join(x[2 * c], x[2 * c + 1]);
      if (from.width % 2 != 0) to[from.width / 2 * kTile + j] = join(x[from.width - 1], {});
    }
  }
}

}  // namespace llmz::cpu
