#pragma once

#include <cstdint>

namespace llmz {

/// The `sign` projector of core/projector.h, feature by feature: a random permutation π of 0 … n−1 as a function (a
/// Feistel network over Z_a × Z_b, a·b just above n, whose round keys are Philox draws, walked along its cycle until it
/// falls below n: Black and Rogaway 2002), and a random sign. Feature i belongs to group π(i) mod r, so groups differ
/// in size by at most one. Computed without a table, on any device alike.
class SignMap {
 public:
  SignMap(uint64_t seed, uint32_t layer, int64_t width);

  /// π(i).
  constexpr int64_t position(int64_t i) const {
    auto x = static_cast<uint32_t>(i);
    do {
      uint32_t left = x / right_, right = x % right_;
      for (int round = 0; round < kRounds; round += 2) {
        left = (left + below(right ^ keys_[round], left_)) % left_;
        right = (right + below(left ^ keys_[round + 1], right_)) % right_;
      }
      x = left * right_ + right;
    } while (x >= width_);
    return x;
  }
  /// +1 or −1.
  float sign(int64_t i) const;
  /// Number kSigns + i/32 of the projector's stream holds in bit i%32 whether feature i's sign is −1.
  static constexpr uint64_t kSigns = uint64_t{1} << 42;

 private:
  static constexpr int kRounds = 8;

  /// A number below n, n < 2^16, from the mixed bits of x.
  static constexpr uint32_t below(uint32_t x, uint32_t n) {
    x = (x ^ (x >> 16)) * 0x9E3779B1u;  // 2^32 over the golden ratio
    x = (x ^ (x >> 15)) * 0x85EBCA77u;
    x ^= x >> 13;
    return static_cast<uint32_t>((static_cast<uint64_t>(x) * n) >> 32);
  }

  uint64_t seed_;
  uint32_t layer_, width_, left_, right_;
  uint32_t keys_[kRounds];
};

}  // namespace llmz
