#pragma once

#include "kernels/cpu/rows.h"
#include "llmz/core/random.h"

namespace llmz::cpu {

/// Words that a buffer of `random_bits` holds: a chunk, and what rounding out to whole groups of counters adds.
constexpr int64_t kRandomWords = kChunk + 128;

/// Elements first … first + count − 1 of the stream, count ≤ kChunk: the same bits as stream.bits. They stand in
/// `buffer` [kRandomWords], from the address returned.
const uint32_t* random_bits(uint32_t* buffer, const RandomStream& stream, uint64_t first, int64_t count);

/// A bf16 neighbour of x, the upper one with the probability of the fraction: the word's upper 16 bits are added below
/// those that stay. Infinities stay, NaN stays a NaN.
LLMZ_INLINE void store_at_random(bf16* p, float x, uint32_t word) {
  const uint32_t u = std::bit_cast<uint32_t>(x);
  const uint32_t moved = (u & 0x7f800000u) != 0x7f800000u ? u + (word >> 16) : u;
  p->bits = static_cast<uint16_t>((x == x ? moved : u | 0x400000u) >> 16);
}

}  // namespace llmz::cpu
