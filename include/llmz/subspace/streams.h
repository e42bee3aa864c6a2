#pragma once

// Which random numbers projectors and codecs use when: functions of (run seed, tensor, step, micro-step) alone.

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "llmz/core/random.h"
#include "llmz/subspace/clock.h"

namespace llmz::subspace {

/// How the random streams of a model's tensors are told apart: by name; or, as in runs that began with checkpoint
/// format 1, by the order in which layers announce their tensors.
enum class StreamsBy : uint8_t { name, order };

/// Which tensor of a model: `id` selects its random numbers (`layer` of RandomStream), `number`, which counts the
/// tensors as they are announced, the rank that works for it at a refresh.
struct StreamId {
  uint32_t id = 0, number = 0;

  StreamId part(size_t i) const { return {id + static_cast<uint32_t>(i), number + static_cast<uint32_t>(i)}; }
};

/// Gives tensors their streams.
class StreamTable {
 public:
  StreamTable(StreamsBy by, uint32_t first) : by_(by), next_(first) {}

  /// Of the tensor `name`, the first of as many streams as it has parts; no other tensor has one of them. By name they
  /// are its hash or, where a tensor that was announced before has that (none up to a thousand layers), another.
  StreamId add(const std::string& name, size_t parts = 1);

 private:
  uint32_t free_id(const std::string& name, size_t parts) const;
  StreamsBy by_;
  uint32_t next_;
  std::map<uint32_t, std::string> taken_;
};

/// 32-bit FNV-1a.
constexpr uint32_t hash_of(std::string_view name) {
  uint32_t hash = 2166136261u;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
  return hash;
}

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
