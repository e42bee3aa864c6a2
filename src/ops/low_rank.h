#pragma once

#include <algorithm>

#include "llmz/ops/optimizer.h"
#include "src/ops/dispatch.h"
#include "src/ops/sketching.h"

namespace llmz::ops {

/// Rows of an expanded gradient that exist at once.
constexpr int64_t kTileRows = 256;

/// A low-rank gradient, to be read tile by tile. `in_bf16`: factor and projector are multiplied in bf16, with f32 sums.
/// For use inside one op.
class ExpandedTiles {
 public:
  ExpandedTiles(Exec& exec, const LowRankGrad& grad, bool in_bf16);

  /// Calls f(first row, tile [rows,n]) for all rows of G̃ in order; a tile is overwritten by the next.
  template <class F>
  void for_each(F&& f) {
    const int64_t rows = grad_.factor.dim(0);
    for (int64_t first = 0; first < rows; first += kTileRows) {
      const Tensor tile = tile_.tensor().slice(0, 0, std::min(kTileRows, rows - first));
      expand(tile, first);
      f(first, tile);
    }
  }

 private:
  void expand(Tensor tile, int64_t first);

  Exec& exec_;
  const LowRankGrad& grad_;
  Sketching sketching_;
  Buffer factor_, tile_;  ///< the first: a copy of an f32 factor to be multiplied in bf16
};

/// Checks shapes and devices of a low-rank gradient [m,n].
void check_low_rank(std::string_view op, const LowRankGrad& grad, int64_t m, int64_t n);

}  // namespace llmz::ops
