#pragma once

#include "kernels/cpu/rows.h"
#include "llmz/core/random.h"

namespace llmz::cpu {

/// Words that a buffer of `random_bits` holds: a chunk, and what rounding out to whole groups of counters adds.
constexpr int64_t kRandomWords = kChunk + 64;

/// Elements first … first + count − 1 of the stream, count ≤ kChunk: the same bits as stream.bits. They stand in
/// `buffer` [kRandomWords], from the address returned.
const uint32_t* random_bits(uint32_t* buffer, const RandomStream& stream, uint64_t first, int64_t count);

/// Values become neighbouring bf16 numbers, up with the probability of the fraction: number first + i of the stream for
/// x[i]. Infinities and NaN stay.
void round_to_bf16_stochastically(float* x, const RandomStream& stream, uint64_t first, int64_t count);

}  // namespace llmz::cpu
