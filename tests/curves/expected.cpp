#include "curves/expected.h"

#include <dnnl.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include <spdlog/fmt/fmt.h>

#include "catch.h"
#include "io/scratch.h"
#include "llmz/io/files.h"

namespace llmz::testing {
namespace {

using Json = nlohmann::json;

/// Another processor, compiler or oneDNN adds the same fp32 numbers in another order, as another number of ranks does;
/// twelve steps of AdamW let it grow, and codes of few bits fall on the other side of a boundary (ranks/methods.h).
constexpr double kOtherMachine = 1e-3;

const std::filesystem::path kFile = std::filesystem::path(LLMZ_CURVES) / "expected.json";

std::string processor() {
  std::ifstream in("/proc/cpuinfo");
  std::string family, model, name;
  for (std::string line; std::getline(in, line) && !line.empty();) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos || colon + 2 > line.size()) continue;
    const std::string value = line.substr(colon + 2);
    if (line.starts_with("cpu family")) family = value;
    if (line.starts_with("model name")) name = value;
    if (line.starts_with("model\t")) model = value;
  }
  return fmt::format("{} family {} model {}", name, family, model);
}

Json numbers(const std::map<int64_t, double>& by_step) {
  Json list = Json::array();
  for (const auto& [step, value] : by_step) list.push_back({step, value});
  return list;
}

std::map<int64_t, double> by_step(const Json& list) {
  std::map<int64_t, double> numbers;
  for (const Json& pair : list) numbers[pair.at(0).get<int64_t>()] = pair.at(1).get<double>();
  return numbers;
}

}  // namespace

std::string ExpectedCurves::machine() {
  const dnnl_version_t* v = dnnl_version();
  return fmt::format("{}; {}; {}; oneDNN {}.{}.{}", processor(), __VERSION__, LLMZ_BUILD, v->major, v->minor, v->patch);
}

ExpectedCurves::ExpectedCurves() : writing_(std::getenv("LLMZ_WRITE_CURVES") != nullptr) {
  if (!std::filesystem::exists(kFile)) return;
  const Json all = Json::parse(io::read_text(kFile));
  machine_ = all.at("machine").get<std::string>();
  for (const auto& [name, curve] : all.at("curves").items()) {
    curves_[name] = {.loss = by_step(curve.at("loss")),
                     .grad_norm = by_step(curve.at("grad_norm")),
                     .validation = by_step(curve.at("validation")),
                     .sent_bytes = {}};
  }
}

void ExpectedCurves::check(const std::string& name, const Curve& curve) {
  if (writing_) {
    curves_[name] = curve;
    return;
  }
  INFO(name);
  const auto there = curves_.find(name);
  REQUIRE(there != curves_.end());
  REQUIRE_FALSE(there->second.loss.empty());
  const double found = distance(there->second, curve);
  if (same_machine()) {
    CHECK(found == 0);
  } else {
    CHECK(found < kOtherMachine);
  }
}

void ExpectedCurves::finish() const {
  if (!writing_) return;
  Json curves = Json::object();
  for (const auto& [name, curve] : curves_) {
    curves[name] = {{"loss", numbers(curve.loss)},
                    {"grad_norm", numbers(curve.grad_norm)},
                    {"validation", numbers(curve.validation)}};
  }
  // A line a curve, so that a difference shows which.
  std::string text = Json{{"machine", machine()}}.dump();
  text.back() = ',';
  text += "\n\"curves\": {\n";
  for (const auto& [name, curve] : curves.items()) text += Json(name).dump() + ": " + curve.dump() + ",\n";
  text.replace(text.size() - 2, 2, "\n}}\n");
  put(kFile, text);
}

}  // namespace llmz::testing
