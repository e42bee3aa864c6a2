#include "llmz/core/sign_map.h"

#include <cmath>

#include "llmz/core/error.h"
#include "llmz/core/random.h"

namespace llmz {
namespace {

// Elements of the projector's stream that a Gaussian one (n·r numbers from 0) never reaches; so is kSigns.
constexpr uint64_t kKeys = uint64_t{1} << 41;

}  // namespace

SignMap::SignMap(uint64_t seed, uint32_t layer, int64_t width)
    : seed_(seed), layer_(layer), width_(static_cast<uint32_t>(width)) {
  check(width >= 1 && width < (int64_t{1} << 31), "a sign projector needs 1 to 2^31 features, got {}", width);
  left_ = static_cast<uint32_t>(std::ceil(std::sqrt(static_cast<double>(width))));
  right_ = (width_ + left_ - 1) / left_;
  const RandomStream stream(seed, Purpose::projector, layer);
  for (int i = 0; i < kRounds; ++i) keys_[i] = stream.bits(kKeys + static_cast<uint64_t>(i));
}

float SignMap::sign(int64_t i) const {
  const auto index = static_cast<uint64_t>(i);
  const uint32_t bits = RandomStream(seed_, Purpose::projector, layer_).bits(kSigns + index / 32);
  return (bits >> (index % 32) & 1u) != 0 ? -1.0f : 1.0f;
}

}  // namespace llmz
