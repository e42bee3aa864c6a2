#pragma once

#include <string>
#include <vector>

#include <spdlog/fmt/fmt.h>

namespace llmz::testing {

/// How far, relatively, losses and gradient norms of runs may part that differ in nothing but their ranks.
/// Ranks add the same fp32 numbers in another order, by which a gradient changes by a few times 2⁻²⁴ = 6e-8 of itself;
/// weights follow, and twelve steps of AdamW, which divides by the gradients' size, let it grow. Measured: 1e-7.
constexpr double kSums = 2e-6;
/// A number of which another sum falls on the other side of a rounding boundary: the code, of 4 or 8 bits, is then a
/// whole level off, in one of thousands of numbers. Measured: up to 3e-6.
constexpr double kCodes = 2e-5;
/// The same with bf16's 8 bits, in all that is multiplied. Measured: 5e-5.
constexpr double kHalf = 5e-4;

/// For --set.
using Settings = std::vector<std::string>;

/// Methods whose projectors are new every `period` steps.
inline Settings compact(int period) {
  Settings settings = {"preset=compact_n4"};
  for (const char* role : {"qkv_input", "gate_up_input", "down_input"}) {
    settings.push_back(fmt::format("activations.{}.refresh={}", role, period));
  }
  return settings;
}
/// `random`: the period of the random part alone; 0: that of all.
inline Settings prac(int period, int random = 0) {
  Settings settings = {"preset=prac"};
  for (const char* role : {"qkv_input", "gate_up_input", "norm", "attention_output", "gate_up", "down_input"}) {
    settings.push_back(fmt::format("activations.{}.refresh={}", role, period));
    settings.push_back(fmt::format("activations.{}.random_refresh={}", role, random));
  }
  return settings;
}
inline Settings projected_adam(int period) {
  return {"activations.norm.codec=store", "weight_gradient.form=low_rank", "weight_gradient.projector=principal",
          fmt::format("weight_gradient.refresh={}", period), "optimizer.moments=subspace"};
}

}  // namespace llmz::testing
