#pragma once

#include <array>
#include <cstdint>

namespace llmz {

/// Philox4x32-10 (Salmon et al., SC 2011): ten rounds of a keyed bijection of a 128-bit counter.
std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

/// What a random number is for; with the layer it selects an independent stream of one seed.
enum class Purpose : uint32_t {
  weights = 1,
  data_order = 2,
  sampling = 3,
  projector = 4,
  rounding = 5,
  rotation = 6,
  weight_rounding = 7,
  test = 99
};

/// A random sequence addressed by element: `at(i)` depends on (seed, purpose, layer, i) alone, never on who
/// asks or in which order. Laid out as cuRAND's Philox: key = seed, subsequence = (purpose, layer), so
/// `bits(i)` equals the i-th draw of curand_init(seed, subsequence, 0).
class RandomStream {
 public:
  RandomStream(uint64_t seed, Purpose purpose, uint32_t layer = 0);

  std::array<uint32_t, 4> block(uint64_t index) const;  ///< elements 4·index … 4·index + 3
  /// What `block` hands to Philox, for kernels that run many blocks side by side: the key, and the counter's upper
  /// words.
  const std::array<uint32_t, 2>& key() const { return key_; }
  const std::array<uint32_t, 2>& stream() const { return stream_; }
  uint32_t bits(uint64_t i) const;
  /// In (0, 1]: (bits(i) + 1/2) / 2^32, rounded to fp32.
  float uniform(uint64_t i) const;
  /// +1 or -1, from the top bit.
  float sign(uint64_t i) const;
  /// In [0, n), n > 0; unbiased to 2^-32 (multiply-shift over 64 bits drawn at element i's block).
  uint64_t below(uint64_t i, uint64_t n) const;
  /// N(0, 1) by Box-Muller on elements (2j, 2j + 1), sine first, as cuRAND's curand_normal4.
  float normal(uint64_t i) const;
  /// out[k] = stddev · normal(first + k). Same numbers however it is split.
  void fill_normal(float* out, uint64_t first, uint64_t count, float stddev) const;

 private:
  std::array<uint32_t, 2> key_;
  std::array<uint32_t, 2> stream_;
};

}  // namespace llmz
