#include "llmz/run/presets.h"

#include <algorithm>

#include <spdlog/fmt/fmt.h>

#include "llmz/model/model.h"

namespace llmz::run {
namespace {

// Each preset as a user could have written it; a code that several roles or presets have is said once.

struct RoleCode {
  const char* role;
  std::string code;
};

/// {"activations": {role: code, ...}} with `more` sections after it.
std::string method(const std::vector<RoleCode>& roles, const std::string& more = "") {
  std::string lines;
  for (const RoleCode& r : roles) lines += fmt::format("{}\n    \"{}\": {}", lines.empty() ? "" : ",", r.role, r.code);
  return fmt::format("{{\n  \"activations\": {{{}\n  }}{}\n}}\n", lines, more.empty() ? "" : ",\n  " + more);
}

constexpr const char* kStore = R"({ "codec": "store" })";
constexpr const char* kShared = R"({ "codec": "shared" })";
constexpr const char* kRecompute = R"({ "codec": "recompute" })";
constexpr const char* kFourBits = R"({ "codec": "quant", "bits": 4, "group": 32 })";
constexpr const char* kEightBits = R"({ "codec": "quant", "bits": 8 })";

/// rank = width / divisor.
std::string sketch(const char* projector, int divisor) {
  return fmt::format(R"({{ "codec": "sketch", "projector": "{}", "rank": {}, "refresh": 50 }})", projector,
                     1.0 / divisor);
}

std::string prac_sketch(const char* rank, const char* random) {
  return fmt::format(
      R"({{ "codec": "sketch", "projector": "prac", "rank": {0}, "random_rank": {0}, "random": "{1}", "refresh": 500 }})",
      rank, random);
}

/// CompAct with rank = width / divisor (arXiv 2410.15352): norms, the output projection's input, gate and up stay
/// exact.
std::string compact(int divisor) {
  const std::string code = sketch("gaussian", divisor);
  return method({{"qkv_input", code}, {"gate_up_input", code}, {"norm", kStore}, {"down_input", code}},
                R"("optimizer": {
    "moments": "subspace",
    "subspace": { "alpha": 0.25, "at_refresh": "keep" },
    "lr_scale": { "attention_output": 0.125 }
  })");
}

/// PRAC (arXiv 2602.23111): ranks 0.3 + 0.3 for what linear layers read, 0.2 + 0.2 for norms and SwiGLU or GELU.
std::string prac(bool nonlinear) {
  const std::string linear = prac_sketch("0.3", "haar"), other = prac_sketch("0.2", "haar");
  std::vector<RoleCode> roles = {{"qkv_input", linear},
                                 {"gate_up_input", linear},
                                 {"norm", nonlinear ? other : kStore},
                                 {"attention_output", linear},
                                 {"down_input", linear}};
  if (nonlinear) roles.insert(roles.end(), {{"gate_up", other}, {"norm_constant", "\"code\""}});
  return method(roles);
}

/// PRAC as llmz makes it fast: sign groups as the random part, which take no product, and the down projection's input
/// rebuilt from gate and up, which are kept anyway: exact, and no bytes.
std::string prac_sign() {
  const std::string code = prac_sketch("0.3", "sign");
  return method({{"qkv_input", code},
                 {"gate_up_input", code},
                 {"norm", kStore},
                 {"attention_output", kStore},
                 {"down_input", kRecompute}});
}

/// Inputs of 4 bits, attention of 8, and the MLP's product rebuilt from gate and up.
std::string quantised(const char* gate_up, const std::string& more = "") {
  return method({{"qkv_input", kFourBits},
                 {"gate_up_input", kFourBits},
                 {"norm", kShared},
                 {"qkv", kEightBits},
                 {"attention_output", kEightBits},
                 {"gate_up", gate_up},
                 {"down_input", kRecompute}},
                more);
}

std::string fast() {
  const std::string code = sketch("sign", 4);
  return method({{"qkv_input", code},
                 {"gate_up_input", code},
                 {"norm", kStore},
                 {"attention_output", kStore},
                 {"down_input", code}});
}

// What the papers count: n = hidden, F = intermediate.
PaperCount full_count(const model::ModelConfig& c) {
  return {2 * static_cast<double>(c.hidden) + static_cast<double>(c.intermediate), "2n + F"};
}

/// CompAct: query, key, value, gate and up have a sketch each.
template <int kDivisor>
PaperCount compact_count(const model::ModelConfig& c) {
  const int inputs = model::has_gate(c) ? 5 : 4;
  const double numbers = inputs * static_cast<double>(c.hidden) + static_cast<double>(c.intermediate);
  return {numbers / kDivisor, fmt::format("({}n + F)/{}", inputs, kDivisor)};
}

PaperCount prac_count(const model::ModelConfig& c) { return {0.6 * full_count(c).numbers, "0.6 (2n + F)"}; }

}  // namespace

const std::vector<Preset>& presets() {
  static const std::vector<Preset> all = {
      {"full", "everything exact, AdamW", "{}\n", full_count},
      {"checkpoint", "activation checkpointing: a block's input alone, its forward again in backward",
       method({{"block", kRecompute}})},
      {"compact_n2", "CompAct, rank n/2", compact(2), compact_count<2>},
      {"compact_n4", "CompAct, rank n/4", compact(4), compact_count<4>},
      {"compact_n8", "CompAct, rank n/8", compact(8), compact_count<8>},
      {"prac_linear", "PRAC on what linear layers read, 0.3 + 0.3", prac(false), prac_count},
      {"prac", "PRAC with norms and SwiGLU or GELU too, 0.2 + 0.2", prac(true), prac_count},
      {"prac_sign", "PRAC at its fastest: sign groups for the random part, products rebuilt", prac_sign()},
      {"quant4", "4 bits in groups of 32, attention 8 bits, AdamW", quantised(kFourBits)},
      {"lean", "least memory: 4-bit inputs, the rest rebuilt, factored and 8-bit moments",
       quantised(kRecompute, R"("optimizer": { "moments": "factored", "first_moment_bits": 8 })")},
      {"fast", "most tokens a second: sign sketches, rank n/4", fast()},
  };
  return all;
}

const Preset* find_preset(const std::string& name) {
  const auto& all = presets();
  const auto row = std::find_if(all.begin(), all.end(), [&](const Preset& p) { return p.name == name; });
  return row == all.end() ? nullptr : &*row;
}

std::vector<std::string> preset_names() {
  std::vector<std::string> names;
  for (const Preset& preset : presets()) names.push_back(preset.name);
  return names;
}

void reset_method(RunConfig& config) {
  const optim::OptimizerConfig defaults;
  config.activations = {};
  config.weight_gradient = {};
  config.optimizer.moments = defaults.moments;
  config.optimizer.first_moment_bits = defaults.first_moment_bits;
  config.optimizer.subspace = defaults.subspace;
  config.optimizer.lr_scale.attention_output = defaults.lr_scale.attention_output;
}

const std::vector<PrecisionSet>& precision_sets() {
  using enum optim::Bf16Weights;
  static const std::vector<PrecisionSet> all = {
      {"fp32", "everything fp32", {Compute::fp32, master}},
      {"tf32", "fp32, products on a GPU with factors rounded to TF32", {Compute::tf32, master}},
      {"bf16", "bf16 products, fp32 master weights and moments", {Compute::bf16, master}},
      {"bf16_stochastic", "bf16 weights rounded at random, fp32 moments", {Compute::bf16, stochastic}},
      {"pure_bf16",
       "the papers' runs: weights, gradients and moments bf16, rounded to nearest, no master copy",
       {Compute::bf16, nearest, DType::bf16, DType::bf16}},
  };
  return all;
}

}  // namespace llmz::run
