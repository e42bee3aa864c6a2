#include "ranks/curve.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "llmz/core/error.h"
#include "llmz/io/files.h"
#include "llmz/io/safetensors.h"

namespace llmz::testing {
namespace fs = std::filesystem;
namespace {

double largest_difference(const std::map<int64_t, double>& a, const std::map<int64_t, double>& b) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (a.size() != b.size()) return kInfinity;
  double largest = 0;
  for (const auto& [step, value] : a) {
    const auto there = b.find(step);
    if (there == b.end() || !std::isfinite(value + there->second)) return kInfinity;
    largest = std::max(largest, std::abs(value - there->second) / std::abs(value));
  }
  return largest;
}

}  // namespace

Curve read_curve(const fs::path& run) {
  Curve curve;
  std::istringstream in(io::read_text(run / "metrics.jsonl"));
  for (std::string line; std::getline(in, line);) {
    const auto entry = nlohmann::json::parse(line);
    const auto step = entry["step"].get<int64_t>();
    const auto take = [&](const char* key, std::map<int64_t, double>& into) {
      if (entry.contains(key)) into[step] = entry[key].get<double>();
    };
    take("loss", curve.loss);
    take("grad_norm", curve.grad_norm);
    take("validation_loss", curve.validation);
    take("sent_bytes", curve.sent_bytes);
  }
  return curve;
}

double distance(const Curve& a, const Curve& b) {
  return std::max({largest_difference(a.loss, b.loss), largest_difference(a.grad_norm, b.grad_norm),
                   largest_difference(a.validation, b.validation)});
}

std::set<std::string> tensors_of(const fs::path& file) {
  std::set<std::string> tensors;
  const auto opened = io::SafetensorsFile::open(file);
  for (const auto& t : opened.tensors()) {
    tensors.insert(fmt::format("{} {} [{}]", t.name, t.dtype, fmt::join(t.shape, ",")));
  }
  return tensors;
}

}  // namespace llmz::testing
