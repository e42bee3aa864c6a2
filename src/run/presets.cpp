#include "llmz/run/presets.h"

#include <algorithm>

#include <spdlog/fmt/fmt.h>

namespace llmz::run {
namespace {

/// CompAct with rank = width / divisor (arXiv 2410.15352): norms, the output projection's input, gate and up stay
/// exact.
std::string compact(int divisor) {
  const std::string sketch =
      fmt::format(R"({{ "codec": "sketch", "projector": "gaussian", "rank": {}, "refresh": 50 }})", 1.0 / divisor);
  return fmt::format(R"({{
  "activations": {{
    "qkv_input": {0},
    "gate_up_input": {0},
    "norm": {{ "codec": "store" }},
    "down_input": {0}
  }},
  "optimizer": {{
    "moments": "subspace",
    "subspace": {{ "alpha": 0.25, "at_refresh": "keep" }},
    "lr_scale": {{ "attention_output": 0.125 }}
  }}
}}
)",
                     sketch);
}

constexpr const char* kPracSketch =
    R"({ "codec": "sketch", "projector": "prac", "rank": 0.3, "random_rank": 0.3, "random": "haar", "refresh": 500 })";
constexpr const char* kPracNonlinear =
    R"({ "codec": "sketch", "projector": "prac", "rank": 0.2, "random_rank": 0.2, "random": "haar", "refresh": 500 })";

/// PRAC (arXiv 2602.23111): ranks 0.3 + 0.3 for what linear layers read, 0.2 + 0.2 for norms and SwiGLU or GELU.
std::string prac(bool nonlinear) {
  const std::string norm = nonlinear ? kPracNonlinear : R"({ "codec": "store" })";
  const std::string gate_up = nonlinear ? fmt::format(",\n    \"gate_up\": {}", kPracNonlinear) : "";
  const std::string constant = nonlinear ? ",\n    \"norm_constant\": \"code\"" : "";
  return fmt::format(R"({{
  "activations": {{
    "qkv_input": {0},
    "gate_up_input": {0},
    "norm": {1},
    "attention_output": {0}{2},
    "down_input": {0}{3}
  }}
}}
)",
                     kPracSketch, norm, gate_up, constant);
}

/// PRAC as llmz makes it fast: sign groups as the random part, which take no product, and the down projection's input
/// rebuilt from gate and up, which are kept anyway: exact, and no bytes.
constexpr const char* kPracSign = R"({
  "activations": {
    "qkv_input": { "codec": "sketch", "projector": "prac", "rank": 0.3, "random_rank": 0.3, "random": "sign", "refresh": 500 },
    "gate_up_input": { "codec": "sketch", "projector": "prac", "rank": 0.3, "random_rank": 0.3, "random": "sign", "refresh": 500 },
    "norm": { "codec": "store" },
    "attention_output": { "codec": "store" },
    "down_input": { "codec": "recompute" }
  }
}
)";

constexpr const char* kCheckpoint = R"({
  "activations": { "block": { "codec": "recompute" } }
}
)";

constexpr const char* kLean = R"({
  "activations": {
    "qkv_input": { "codec": "quant", "bits": 4, "group": 32 },
    "gate_up_input": { "codec": "quant", "bits": 4, "group": 32 },
    "norm": { "codec": "shared" },
    "qkv": { "codec": "quant", "bits": 8 },
    "attention_output": { "codec": "quant", "bits": 8 },
    "gate_up": { "codec": "recompute" },
    "down_input": { "codec": "recompute" }
  },
  "optimizer": { "moments": "factored", "first_moment_bits": 8 }
}
)";

constexpr const char* kQuant4 = R"({
  "activations": {
    "qkv_input": { "codec": "quant", "bits": 4, "group": 32 },
    "gate_up_input": { "codec": "quant", "bits": 4, "group": 32 },
    "norm": { "codec": "shared" },
    "qkv": { "codec": "quant", "bits": 8 },
    "attention_output": { "codec": "quant", "bits": 8 },
    "gate_up": { "codec": "quant", "bits": 4, "group": 32 },
    "down_input": { "codec": "recompute" }
  }
}
)";

constexpr const char* kFast = R"({
  "activations": {
    "qkv_input": { "codec": "sketch", "projector": "sign", "rank": 0.25, "refresh": 50 },
    "gate_up_input": { "codec": "sketch", "projector": "sign", "rank": 0.25, "refresh": 50 },
    "norm": { "codec": "store" },
    "attention_output": { "codec": "store" },
    "down_input": { "codec": "sketch", "projector": "sign", "rank": 0.25, "refresh": 50 }
  }
}
)";

}  // namespace

const std::vector<Preset>& presets() {
  static const std::vector<Preset> all = {
      {"full", "everything exact, AdamW", "{}\n"},
      {"checkpoint", "activation checkpointing: a block's input alone, its forward again in backward", kCheckpoint},
      {"compact_n2", "CompAct, rank n/2", compact(2)},
      {"compact_n4", "CompAct, rank n/4", compact(4)},
      {"compact_n8", "CompAct, rank n/8", compact(8)},
      {"prac_linear", "PRAC on what linear layers read, 0.3 + 0.3", prac(false)},
      {"prac", "PRAC with norms and SwiGLU or GELU too, 0.2 + 0.2", prac(true)},
      {"prac_sign", "PRAC at its fastest: sign groups for the random part, products rebuilt", kPracSign},
      {"quant4", "4 bits in groups of 32, attention 8 bits, AdamW", kQuant4},
      {"lean", "least memory: 4-bit inputs, the rest rebuilt, factored and 8-bit moments", kLean},
      {"fast", "most tokens a second: sign sketches, rank n/4", kFast},
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
  static const std::vector<PrecisionSet> all = {
      {"fp32", "everything fp32", {"fp32", "master", "fp32", "fp32"}},
      {"tf32", "fp32, products on a GPU with factors rounded to TF32", {"tf32", "master", "fp32", "fp32"}},
      {"bf16", "bf16 products, fp32 master weights and moments", {"bf16", "master", "fp32", "fp32"}},
      {"bf16_stochastic", "bf16 weights rounded at random, fp32 moments", {"bf16", "stochastic", "fp32", "fp32"}},
      {"pure_bf16",
       "the papers' runs: weights, gradients and moments bf16, rounded to nearest, no master copy",
       {"bf16", "nearest", "bf16", "bf16"}},
  };
  return all;
}

}  // namespace llmz::run
