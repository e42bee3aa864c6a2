#include "kernels/cpu/random_bits.h"

#include <algorithm>
#include <bit>

namespace llmz::cpu {
namespace {

constexpr int64_t kLanes = 16;  // counters that run side by side; 64 words

/// What is common to all blocks of a stream.
struct PhiloxStream {
  uint32_t key0, key1, stream0, stream1;
};

/// Blocks [first, first + kLanes·groups) of Philox4x32-10 (llmz/core/random.h), one counter a lane. A Word holds 32
/// bits of the counter; what a wider one carries above them never gets down into them, so it need not be cleared.
template <class Word>
LLMZ_INLINE void philox_loop(uint32_t* __restrict out, const PhiloxStream& s, uint64_t first, int64_t groups) {
  constexpr uint64_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
  constexpr uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;
  for (int64_t i = 0; i < kLanes * groups; ++i) {
    const uint64_t index = first + static_cast<uint64_t>(i);
    Word c0 = static_cast<Word>(index), c1 = static_cast<Word>(index >> 32), c2 = s.stream0, c3 = s.stream1;
    uint32_t key0 = s.key0, key1 = s.key1;
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round) {
      const uint64_t p0 = kMultiplier0 * static_cast<uint32_t>(c0), p1 = kMultiplier1 * static_cast<uint32_t>(c2);
      c0 = static_cast<Word>(p1 >> 32) ^ c1 ^ key0;
      c2 = static_cast<Word>(p0 >> 32) ^ c3 ^ key1;
      c1 = static_cast<Word>(p1);
      c3 = static_cast<Word>(p0);
      key0 += kWeyl0;
      key1 += kWeyl1;
    }
    out[4 * i] = static_cast<uint32_t>(c0);
    out[4 * i + 1] = static_cast<uint32_t>(c1);
    out[4 * i + 2] = static_cast<uint32_t>(c2);
    out[4 * i + 3] = static_cast<uint32_t>(c3);
  }
}

LLMZ_SIMD_CLONES void philox_narrow(uint32_t* out, PhiloxStream s, uint64_t first, int64_t groups) {
  philox_loop<uint32_t>(out, s, first, groups);
}
/// Quicker where vectors of 64-bit products are one instruction (0.55 against 0.92 ns a word), slower elsewhere.
LLMZ_SIMD_CLONES void philox_wide(uint32_t* out, PhiloxStream s, uint64_t first, int64_t groups) {
  philox_loop<uint64_t>(out, s, first, groups);
}

bool has_wide_products() {
#if defined(__x86_64__) && defined(__GNUC__)
  return __builtin_cpu_supports("avx512dq") > 0;
#else
  return false;
#endif
}

}  // namespace

const uint32_t* random_bits(uint32_t* buffer, const RandomStream& stream, uint64_t first, int64_t count) {
  const auto skipped = static_cast<int64_t>(first % 4);
  const PhiloxStream s{stream.key()[0], stream.key()[1], stream.stream()[0], stream.stream()[1]};
  static const bool wide = has_wide_products();
  (wide ? philox_wide : philox_narrow)(buffer, s, first / 4, ceil_div(skipped + count, 4 * kLanes));
  return buffer + skipped;
}

void round_to_bf16_stochastically(float* x, const RandomStream& stream, uint64_t first, int64_t count) {
  uint32_t buffer[kRandomWords];
  for (int64_t begin = 0; begin < count; begin += kChunk) {
    const int64_t n = std::min(kChunk, count - begin);
    const uint32_t* const words = random_bits(buffer, stream, first + static_cast<uint64_t>(begin), n);
    for (int64_t i = 0; i < n; ++i) {
      const uint32_t u = std::bit_cast<uint32_t>(x[begin + i]);
      const bool finite = (u & 0x7f800000u) != 0x7f800000u;
      if (finite) x[begin + i] = std::bit_cast<float>((u + (words[i] >> 16)) & 0xffff0000u);
    }
  }
}

}  // namespace llmz::cpu
