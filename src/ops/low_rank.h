#pragma once

#include <algorithm>

#include "llmz/ops/optimizer.h"
#include "src/ops/dispatch.h"
#include "src/ops/sketching.h"

namespace llmz::ops {

/// Rows of an expanded gradient that exist at once.
constexpr int64_t kTileRows = 256;

/// A low-rank gradient, to be read tile by tile. For use inside one op.
class ExpandedTiles {
 public:
  ExpandedTiles(Exec& exec, const LowRankGrad& grad);

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
  Buffer tile_;
};

/// Checks shapes and devices of a low-rank gradient [m,n].
void check_low_rank(std::string_view op, const LowRankGrad& grad, int64_t m, int64_t n);

/// Checks how an optimizer's new weights are to be rounded.
inline void check_rounding(Arguments& args, const Tensor& weight, const WeightRounding& rounding) {
  if (rounding.shadow.present()) {
    args.dtype("shadow", rounding.shadow, DType::bf16);
    args.shape("shadow", rounding.shadow, weight.shape);
    args.contiguous("shadow", rounding.shadow);
    args.require(weight.dtype == DType::f32, "a weight with a shadow is f32, not {}", dtype_name(weight.dtype));
  }
  args.require(!rounding.stochastic || weight.dtype == DType::bf16, "only a bf16 weight is rounded stochastically");
}

/// A dense gradient as one tile, a low-rank one tile by tile: f(first row, rows of the gradient).
template <class F>
void for_gradient_tiles(Exec& exec, const Tensor& dense, const LowRankGrad& low, F&& f) {
  if (!low.present()) return f(int64_t{0}, dense);
  ExpandedTiles(exec, low).for_each(f);
}

}  // namespace llmz::ops
