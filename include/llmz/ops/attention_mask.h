#pragma once

#include <algorithm>
#include <cstdint>

#include "llmz/core/tensor.h"

namespace llmz::ops {

/// Which keys a query sees: a run of neighbouring ones. Query i of Sq stands at position Skv − Sq + i of its sequence.
struct AttentionMask {
  bool causal = true;  ///< none after its own position; false: keys on both sides
  int64_t window = 0;  ///< only keys less than so far from its position; 0 = however far
  Tensor lengths =
      {};  ///< [B] i32: the first so many keys of each sequence count, the others are padding; absent = all

  bool only_causal() const { return causal && window == 0 && !lengths.present(); }
  /// The first key and the one past the last that a query at `position` sees of `keys`; padding not counted.
  int64_t begin(int64_t position) const { return window == 0 ? 0 : std::max<int64_t>(0, position - window + 1); }
  int64_t end(int64_t position, int64_t keys) const {
    if (causal) return std::min(keys, position + 1);
    return window == 0 ? keys : std::min(keys, position + window);
  }
};

}  // namespace llmz::ops
