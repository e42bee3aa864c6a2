#include "kernels/cpu/random_bits.h"

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // gcc 12 warns about its own AVX-512 intrinsics
#endif
#ifdef __x86_64__
#include <immintrin.h>
#endif

namespace llmz::cpu {
namespace {

constexpr int64_t kLanes = 32;  // counters that run side by side; 128 words
constexpr uint32_t kRounds = 10;
constexpr uint32_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
constexpr uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;

/// What is common to all blocks of a stream.
struct PhiloxStream {
  uint32_t key0, key1, stream0, stream1;
};

/// Blocks [first, first + kLanes·groups) of Philox4x32-10 (llmz/core/random.h), one counter a lane.
LLMZ_INLINE void philox_loop(uint32_t* __restrict out, const PhiloxStream& s, uint64_t first, int64_t groups) {
  for (int64_t i = 0; i < kLanes * groups; ++i) {
    const uint64_t index = first + static_cast<uint64_t>(i);
    uint32_t c0 = static_cast<uint32_t>(index), c1 = static_cast<uint32_t>(index >> 32), c2 = s.stream0, c3 = s.stream1;
    uint32_t key0 = s.key0, key1 = s.key1;
#pragma GCC unroll 10
    for (uint32_t round = 0; round < kRounds; ++round) {
      const uint64_t p0 = uint64_t{kMultiplier0} * c0, p1 = uint64_t{kMultiplier1} * c2;
      c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ key0;
      c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ key1;
      c1 = static_cast<uint32_t>(p1);
      c3 = static_cast<uint32_t>(p0);
      key0 += kWeyl0;
      key1 += kWeyl1;
    }
    out[4 * i] = c0;
    out[4 * i + 1] = c1;
    out[4 * i + 2] = c2;
    out[4 * i + 3] = c3;
  }
}

#ifdef LLMZ_TARGET_AVX512

/// The same, eight counters a vector, each word in the lower half of 64 bits: what a product leaves in the upper half
/// is never looked at, so a round is two products, two shifts and two three-way exclusive ors.
struct PhiloxVector {
  __m512i c0, c1, c2, c3;
};

/// Counters first, first + 4, first + 1, … first + 7: in this order `store_blocks` takes two shuffles a vector.
LLMZ_TARGET_AVX512 LLMZ_INLINE PhiloxVector counters(const PhiloxStream& s, uint64_t first) {
  const __m512i index =
      _mm512_add_epi64(_mm512_set1_epi64(static_cast<int64_t>(first)), _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7));
  return {index, _mm512_srli_epi64(index, 32), _mm512_set1_epi64(s.stream0), _mm512_set1_epi64(s.stream1)};
}

LLMZ_TARGET_AVX512 LLMZ_INLINE void philox_round(PhiloxVector& v, __m512i key0, __m512i key1) {
  constexpr int kXorOfThree = 0x96;
  const __m512i p0 = _mm512_mul_epu32(v.c0, _mm512_set1_epi64(kMultiplier0));
  const __m512i p1 = _mm512_mul_epu32(v.c2, _mm512_set1_epi64(kMultiplier1));
  v.c0 = _mm512_ternarylogic_epi64(_mm512_srli_epi64(p1, 32), v.c1, key0, kXorOfThree);
  v.c2 = _mm512_ternarylogic_epi64(_mm512_srli_epi64(p0, 32), v.c3, key1, kXorOfThree);
  v.c1 = p1;
  v.c3 = p0;
}

LLMZ_TARGET_AVX512 LLMZ_INLINE void store_blocks(uint32_t* out, const PhiloxVector& v) {
  constexpr __mmask16 kUpperHalves = 0xaaaa;
  const __m512i first = _mm512_mask_shuffle_epi32(v.c0, kUpperHalves, v.c1, _MM_PERM_CCAA);
  const __m512i second = _mm512_mask_shuffle_epi32(v.c2, kUpperHalves, v.c3, _MM_PERM_CCAA);
  _mm512_storeu_si512(out, _mm512_unpacklo_epi64(first, second));
  _mm512_storeu_si512(out + 16, _mm512_unpackhi_epi64(first, second));
}

LLMZ_TARGET_AVX512 void philox_avx512(uint32_t* out, const PhiloxStream& s, uint64_t first, int64_t groups) {
  alignas(64) int64_t keys[kRounds][2];  // read from memory where they are used, which costs nothing beside the sums
  for (uint32_t r = 0; r < kRounds; ++r) {
    keys[r][0] = s.key0 + r * kWeyl0;
    keys[r][1] = s.key1 + r * kWeyl1;
  }
  for (int64_t i = 0; i < groups; ++i, first += kLanes, out += 4 * kLanes) {
    PhiloxVector v[kLanes / 8];
#pragma GCC unroll 4
    for (int j = 0; j < kLanes / 8; ++j) v[j] = counters(s, first + static_cast<uint64_t>(8 * j));
#pragma GCC unroll 10
    for (uint32_t r = 0; r < kRounds; ++r) {
      const __m512i k0 = _mm512_set1_epi64(keys[r][0]), k1 = _mm512_set1_epi64(keys[r][1]);
#pragma GCC unroll 4
      for (int j = 0; j < kLanes / 8; ++j) philox_round(v[j], k0, k1);
    }
#pragma GCC unroll 4
    for (int j = 0; j < kLanes / 8; ++j) store_blocks(out + 32 * j, v[j]);
  }
}

#endif

void philox(uint32_t* out, const PhiloxStream& s, uint64_t first, int64_t groups) {
#ifdef LLMZ_TARGET_AVX512
  if (isa() == Isa::avx512) return philox_avx512(out, s, first, groups);
#endif
  simd<philox_loop>(out, s, first, groups);
}

}  // namespace

const uint32_t* random_bits(uint32_t* buffer, const RandomStream& stream, uint64_t first, int64_t count) {
  const auto skipped = static_cast<int64_t>(first % 4);
  const PhiloxStream s{stream.key()[0], stream.key()[1], stream.stream()[0], stream.stream()[1]};
  philox(buffer, s, first / 4, ceil_div(skipped + count, 4 * kLanes));
  return buffer + skipped;
}

}  // namespace llmz::cpu
