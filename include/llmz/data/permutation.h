#pragma once

#include <cstdint>

namespace llmz::data {

/// A random order of 0 … size-1, computed element by element without a table: a Feistel network over Z_a × Z_b (a·b
/// just above `size`, a ≈ b; rounds add a Philox draw to one half, keyed by the other), walked along its cycle until it
/// falls inside (Black and Rogaway, Ciphers with Arbitrary Finite Domains, 2002). Each (seed, epoch) is another order.
class Permutation {
 public:
  /// 1 ≤ size ≤ 2^62.
  Permutation(int64_t size, uint64_t seed);
  int64_t size() const { return static_cast<int64_t>(size_); }
  /// The element at `position` (0 … size-1) of this epoch's order.
  int64_t at(int64_t epoch, int64_t position) const;

 private:
  uint64_t size_, left_, right_, seed_;  // left_ · right_ ≥ size_
};

}  // namespace llmz::data
