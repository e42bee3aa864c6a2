#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <set>
#include <string>

namespace llmz::testing {

/// A run as its metrics tell it, by step.
struct Curve {
  std::map<int64_t, double> loss, grad_norm, validation, sent_bytes;
};
Curve read_curve(const std::filesystem::path& run);

/// The largest relative difference between two runs in loss, gradient norm or validation loss; infinite where one has
/// a step that the other lacks.
double distance(const Curve& a, const Curve& b);

/// Tensors of a safetensors file as "name dtype [shape]".
std::set<std::string> tensors_of(const std::filesystem::path& file);

}  // namespace llmz::testing
