#include "llmz/core/random.h"

#include <cmath>
#include <numbers>

namespace llmz {

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  constexpr uint64_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
  constexpr uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = kMultiplier0 * counter[0];
    const uint64_t p1 = kMultiplier1 * counter[2];
    counter = {static_cast<uint32_t>(p1 >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(p1),
               static_cast<uint32_t>(p0 >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(p0)};
    key[0] += kWeyl0;
    key[1] += kWeyl1;
  }
  return counter;
}

namespace {

constexpr float kTwoToMinus32 = 2.3283064365386963e-10f;

float to_uniform(uint32_t x) { return static_cast<float>(x) * kTwoToMinus32 + kTwoToMinus32 * 0.5f; }

std::array<float, 2> box_muller(uint32_t x, uint32_t y) {
  const float u = to_uniform(x);
  const float v = to_uniform(y) * 2.0f * std::numbers::pi_v<float>;
  const float radius = std::sqrt(-2.0f * std::log(u));
  return {radius * std::sin(v), radius * std::cos(v)};
}

}  // namespace

RandomStream::RandomStream(uint64_t seed, Purpose purpose, uint32_t layer)
    : key_{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)},
      stream_{layer, static_cast<uint32_t>(purpose)} {}

std::array<uint32_t, 4> RandomStream::block(uint64_t index) const {
  return philox4x32({static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), stream_[0], stream_[1]}, key_);
}

uint32_t RandomStream::bits(uint64_t i) const { return block(i / 4)[i % 4]; }

float RandomStream::uniform(uint64_t i) const { return to_uniform(bits(i)); }

float RandomStream::sign(uint64_t i) const { return (bits(i) >> 31) != 0 ? -1.0f : 1.0f; }

uint64_t RandomStream::below(uint64_t i, uint64_t n) const {
  const auto b = block(i);
  const uint64_t x = (static_cast<uint64_t>(b[0]) << 32) | b[1];
  // 128-bit product by halves: the high word is x·n / 2^64.
  const uint64_t low = (x & 0xffffffffu) * (n & 0xffffffffu);
  const uint64_t mid1 = (x >> 32) * (n & 0xffffffffu) + (low >> 32);
  const uint64_t mid2 = (x & 0xffffffffu) * (n >> 32) + (mid1 & 0xffffffffu);
  return (x >> 32) * (n >> 32) + (mid1 >> 32) + (mid2 >> 32);
}

float RandomStream::normal(uint64_t i) const {
  const auto b = block(i / 4);
  const size_t pair = (i % 4) / 2;
  return box_muller(b[2 * pair], b[2 * pair + 1])[i % 2];
}

void RandomStream::fill_normal(float* out, uint64_t first, uint64_t count, float stddev) const {
  const uint64_t end = first + count;
  for (uint64_t i = first; i < end;) {
    const auto b = block(i / 4);
    const std::array<float, 2> lo = box_muller(b[0], b[1]), hi = box_muller(b[2], b[3]);
    const std::array<float, 4> values = {lo[0], lo[1], hi[0], hi[1]};
    do {
      out[i - first] = stddev * values[i % 4];
      ++i;
    } while (i % 4 != 0 && i < end);
  }
}

}  // namespace llmz
