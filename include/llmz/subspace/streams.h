#pragma once

// Which random numbers projectors and codecs use when: functions of (run seed, layer, step, micro-step) alone.

#include "llmz/core/random.h"
#include "llmz/subspace/clock.h"

namespace llmz::subspace {

/// A seed for each (seed, purpose, layer, index).
inline uint64_t derived_seed(uint64_t seed, Purpose purpose, uint32_t layer, uint64_t index) {
  const auto b = RandomStream(seed, purpose, layer).block(index);
  return (static_cast<uint64_t>(b[0]) << 32) | b[1];
}

/// Signs of a Hadamard rotation: the same for the whole run.
inline RandomStream rotation_signs(const Clock& clock, uint32_t layer) {
  return RandomStream(clock.seed, Purpose::rotation, layer);
}

/// Draws of stochastic rounding: new ones for each micro-step.
inline RandomStream rounding_draws(const Clock& clock, uint32_t layer) {
  const uint64_t index = (static_cast<uint64_t>(clock.step) << 20) | static_cast<uint64_t>(clock.micro_step);
  return RandomStream(derived_seed(clock.seed, Purpose::rounding, layer, index), Purpose::rounding, layer);
}

}  // namespace llmz::subspace
