#pragma once

// Attention's inner arithmetic on packed fp32 tiles: kTile queries of one head against all the keys they see. Packed
// rows are `width` floats long, the head's width rounded up to 16 and filled with zeros.

#include <cstdint>

#include "kernels/cpu/isa.h"

namespace llmz::cpu {

constexpr int64_t kTile = 64;        // queries, and keys, in a tile
constexpr int64_t kTotalLanes = 16;  // parts in which a row's sum of exponentials is kept

constexpr int64_t kUnlimited = int64_t{1} << 40;

/// One tile of queries. Row i sees keys hidden + i … visible + step·i − 1, as far as they are keys 0 … limit − 1.
struct QueryTile {
  int64_t rows = 0;  // ≤ kTile; the rows up to the next multiple of 4 are zeros
  int64_t visible = 0;
  int64_t width = 0;
  int64_t step = 1;  // 0: all rows see to the same end
  int64_t hidden = -kUnlimited, limit = kUnlimited;

  /// Past the last key that any row sees.
  int64_t end() const { return limit < visible + step * (rows - 1) ? limit : visible + step * (rows - 1); }
  /// The first key of the first key tile that a row sees something of.
  int64_t begin() const { return hidden > 0 ? hidden / kTile * kTile : 0; }
};

struct ForwardTile : QueryTile {
  const float* q = nullptr;      // [kTile, width], times 1/√D
  const float* k_t = nullptr;    // [key tiles, width, kTile]: keys as columns
  const float* v = nullptr;      // [keys, width]
  float* scores = nullptr;       // [kTile, kTile], scratch
  float* total_lanes = nullptr;  // [kTile, kTotalLanes], scratch
  float* sum = nullptr;          // [kTile, width]: Σ exp(score − largest)·v
  float* largest = nullptr;      // [kTile]: the row's largest score
  float* total = nullptr;        // [kTile]: Σ exp(score − largest)
};

struct BackwardTile : QueryTile {
  const float* q = nullptr;     // [kTile, width], times 1/√D
  const float* k_t = nullptr;   // [key tiles, width, kTile]: keys as columns
  const float* k = nullptr;     // [keys, width]
  const float* v_t = nullptr;   // [key tiles, width, kTile]
  const float* dout = nullptr;  // [kTile, width]
  const float* lse = nullptr;   // [kTile]
  float* delta = nullptr;       // [kTile]: Σ dout·out of the row
  bool make_delta = false;      // delta is unknown: it comes from Σ p·(dout·v) over the keys, in a pass of its own
  float* p = nullptr;           // [kTile, kTile], scratch
  float* ds = nullptr;          // [kTile, kTile], scratch
  float* dq = nullptr;          // [kTile, width], overwritten; without the factor 1/√D
  float* dk = nullptr;          // [keys, width], added to
  float* dv = nullptr;          // [keys, width], added to
};

/// The routines for one instruction set.
struct AttentionTiles {
  void (*forward)(const ForwardTile&);
  void (*backward)(const BackwardTile&);
};
AttentionTiles attention_tiles(Isa set = isa());

}  // namespace llmz::cpu
