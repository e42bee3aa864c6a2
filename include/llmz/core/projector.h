#pragma once

#include <cstdint>

#include "llmz/core/tensor.h"

namespace llmz {

/// P [n,r] of a sketch z = x·P, as codecs make it and ops take it: r = r₁ + r₂ columns, P = [Q₁, (I − Q₁Q₁ᵀ)·R].
/// Q₁ (principal part, r₁ columns) and, for `basis`, R are stored; `gaussian` and `sign` come from Philox alone. A
/// view: owns nothing. Bases are stored by rows, each row one direction of the input space.
struct Projector {
  enum class Random : uint8_t {
    none,      ///< r₂ = 0: PAC, biased
    gaussian,  ///< R_ij = N(0, 1/r₂), element (i, j) the normal number i·r₂ + j of the stream (CompAct)
    sign,      ///< R_ij = ±1 where j is feature i's group, else 0: group(i) = π(i) mod r₂, π a random permutation
    basis      ///< R = √k·Q₂, Q₂ orthonormal and orthogonal to Q₁, k = (n − r₁)/r₂ (RAC, PRAC)
  };

  int64_t width = 0;           ///< n
  int64_t principal_rank = 0;  ///< r₁
  int64_t random_rank = 0;     ///< r₂
  Random random = Random::none;
  Tensor principal = {};     ///< Q₁ᵀ [r₁,n], orthonormal rows; absent when r₁ = 0
  Tensor random_basis = {};  ///< Q₂ᵀ [r₂,n], orthonormal rows; `basis` only
  uint64_t seed = 0;         ///< of the stream (seed, Purpose::projector, layer); `gaussian` and `sign`
  uint32_t layer = 0;

  uint64_t previous_seed = 0;  ///< before the last refresh
  bool changed = false;        ///< the step in progress is the first with this P
  int64_t age = 0;             ///< steps since P changed, 0 in the first

  int64_t rank() const { return principal_rank + random_rank; }
  bool only_signs() const { return random == Random::sign && principal_rank == 0; }
  /// k of the `basis` kind.
  double random_gain() const { return static_cast<double>(width - principal_rank) / static_cast<double>(random_rank); }
};

/// Asks an op that writes x [T,n] for z [T,r] = x·P as well, while the rows are at hand. It is made from x as stored: z
/// has the bits that ops::project would give it afterwards. P must be `only_signs`. Codecs make it for the layer that
/// makes x (codec::Codec::sketch_epilogue).
struct SketchEpilogue {
  Tensor z = {};
  const Projector* projector = nullptr;

  bool present() const { return projector != nullptr; }
};

/// A weight gradient G̃ = (Ĝ·Pᵀ)∘column_scale + row_term·column_termᵀ [m,n] that is never formed whole. The last two
/// terms come from a norm between the coded tensor x̂ and the linear layer: its input is x̂∘gain (+ bias).
struct LowRankGrad {
  Tensor factor = {};  ///< Ĝ [m,r]; absent when the gradient is dense
  const Projector* projector = nullptr;
  Tensor column_scale = {};  ///< [n], the norm's gain; absent = ones
  Tensor row_term = {};      ///< [m], Σ_t dy; absent with column_term
  Tensor column_term = {};   ///< [n], the norm's bias; absent = zeros

  bool present() const { return factor.present(); }
};

}  // namespace llmz
