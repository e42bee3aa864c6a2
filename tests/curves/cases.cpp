#include "curves/cases.h"

namespace llmz::testing {
namespace {

Settings operator+(Settings a, const Settings& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

Settings every(const char* key, const std::string& value, const std::vector<const char*>& roles) {
  Settings settings;
  for (const char* role : roles) settings.push_back(fmt::format("activations.{}.{}={}", role, key, value));
  return settings;
}

Settings sketches(const std::string& preset, const std::vector<const char*>& roles) {
  return Settings{"preset=" + preset} + every("refresh", "5", roles);
}

std::vector<CurveCase> preset_cases() {
  const std::vector<const char*> compact_roles = {"qkv_input", "gate_up_input", "down_input"};
  return {{"full", {}, true},
          {"checkpoint", {"preset=checkpoint"}},
          {"compact_n2", sketches("compact_n2", compact_roles)},
          {"compact_n4", compact(5), true},
          {"compact_n8", sketches("compact_n8", compact_roles)},
          {"prac_linear", sketches("prac_linear", {"qkv_input", "gate_up_input", "attention_output", "down_input"})},
          {"prac", prac(6, 3), true},
          {"prac_sign", sketches("prac_sign", {"qkv_input", "gate_up_input"}), true},
          {"quant4", {"preset=quant4"}, true},
          {"lean", {"preset=lean"}, true},
          {"fast", sketches("fast", compact_roles), true}};
}

/// Settings that no preset has, each of a part that draws random numbers, keeps a state or orders its work by itself.
std::vector<CurveCase> other_cases() {
  const std::vector<const char*> inputs = {"qkv_input", "gate_up_input"};
  const Settings grouped = {"model.kv_heads=2"};
  return {
      {"stochastic", Settings{"preset=quant4"} + every("rounding", "stochastic", inputs) + grouped},
      {"rotated", Settings{"preset=quant4"} + every("rotate", "16", inputs)},
      {"coded_sketch", compact(5) + every("bits", "8", inputs)},
      {"projected_keep", projected_adam(5), true},
      {"projected_rotate", compact(5) + Settings{"optimizer.subspace.at_refresh=rotate", "optimizer.weight_decay=0.1"}},
      {"projected_reset", compact(5) + Settings{"optimizer.subspace.at_refresh=reset"}},
      {"factored", {"optimizer.moments=factored", "distributed.zero_stage=1"}, true},
      {"exact_decomposition", prac(6) + every("decomposition", "exact", {"qkv_input", "down_input", "norm"})},
      {"low_rank_gaussian", {"weight_gradient.form=low_rank", "weight_gradient.refresh=5", "optimizer.clip_norm=0"}},
  };
}

}  // namespace

std::vector<CurveCase> curve_cases() {
  std::vector<CurveCase> cases;
  for (CurveCase c : preset_cases()) {
    c.name = "llama/" + c.name;
    cases.push_back(c);
  }
  for (CurveCase c : other_cases()) {
    c.name = "llama/" + c.name;
    cases.push_back(c);
  }
  for (CurveCase c : preset_cases()) {
    cases.push_back({"gpt2/" + c.name, c.settings + Settings{"model.architecture=gpt2", "model.intermediate=91",
                                                             "optimizer.decay_on.biases=true"}});
  }
  return cases;
}

std::vector<CurveCase> old_checkpoint_cases() {
  const Settings small = {"model.hidden=16", "model.intermediate=24", "model.heads=2"};
  return {{"compact_n4", compact(5) + small}, {"prac", prac(4) + small}, {"lean", Settings{"preset=lean"} + small}};
}

Settings common_settings() {
  return {fmt::format("train.steps={}", kCurveSteps),
          fmt::format("output.save_every={}", kSavedStep),
          fmt::format("output.keep_every={}", kSavedStep),
          "output.save_best=false",
          "train.eval_every=6",
          "train.eval_batches=4",
          "train.device=cpu",
          "precision=fp32",
          "optimizer.lr=3e-3",
          "train.global_batch=8",
          "train.micro_batch=2"};
}

}  // namespace llmz::testing
