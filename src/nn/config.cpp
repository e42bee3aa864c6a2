#include "llmz/nn/config.h"

#include <algorithm>

#include "llmz/codec/settings.h"
#include "llmz/core/error.h"

namespace llmz::nn {
namespace {

std::string key_of(const char* role) { return std::string("activations.") + role; }

/// `is`: what a value that is not among `allowed` fails to be.
void check_known(const std::string& value, const std::vector<std::string>& allowed, const std::string& key,
                 const char* is) {
  check(std::find(allowed.begin(), allowed.end(), value) != allowed.end(), "{} = \"{}\" is not {}; allowed: {}", key,
        value, is, fmt::join(allowed, ", "));
}

void check_codecs(const ActivationsConfig& config) {
  for (const ActivationRole& role : activation_roles()) {
    check_known((config.*role.config).codec, role.codecs, key_of(role.key) + ".codec", "possible for this tensor");
  }
}

/// Settings that contradict each other.
void check_together(const ActivationsConfig& config, codec::GradientForm form) {
  const bool shared = config.norm.codec == "shared";
  for (const char* role : {"qkv_input", "gate_up_input"}) {
    const auto& input = role == std::string("qkv_input") ? config.qkv_input : config.gate_up_input;
    check(
        !shared || input.codec != "recompute",
        "activations.{}.codec = \"recompute\" with activations.norm.codec = \"shared\" would keep nothing to make the "
        "input from: choose store, sketch or quant for it, or another activations.norm.codec",
        role);
  }
  const auto is_sketch = [](const codec::CodecConfig& c) { return c.codec == "sketch"; };
  const bool any_sketch = is_sketch(config.qkv_input) || is_sketch(config.gate_up_input) ||
                          is_sketch(config.attention_output) || is_sketch(config.down_input);
  check(form != codec::GradientForm::dense || !any_sketch,
        "weight_gradient.form = \"dense\" does not go with a sketch of a linear layer's input, whose gradient is "
        "low-rank by itself: use \"auto\", or keep the inputs with store, recompute or quant");
}

}  // namespace

const std::vector<ActivationRole>& activation_roles() {
  using A = ActivationsConfig;
  static const auto kept = codec::codecs_for({}), rebuilt = codec::codecs_for({.rebuilds = true}),
                    normalised = codec::codecs_for({.shares_input = true});
  static const std::vector<ActivationRole> roles = {
      {"qkv_input", &A::qkv_input, rebuilt, "input of query/key/value"},
      {"gate_up_input", &A::gate_up_input, rebuilt, "input of gate/up (GPT-2: up)"},
      {"norm", &A::norm, normalised,
       "x̂ for the norm's own backward; `shared`: the linear layer's input is coded as x̂, and that code serves both"},
      {"qkv", &A::qkv, kept, "query, key and value for attention's backward"},
      {"attention_output", &A::attention_output, kept, "output of attention, which is the output projection's input"},
      {"gate_up", &A::gate_up, rebuilt, "gate and up (GPT-2: GELU's input); `recompute`: again from the kept input"},
      {"down_input", &A::down_input, rebuilt, "SwiGLU or GELU product, the down projection's input"}};
  return roles;
}

std::vector<std::string> block_codecs() { return {"store", "recompute"}; }

const config::Names<NormConstant>& norm_constants() {
  static const config::Names<NormConstant> names = {{"outputs", NormConstant::outputs}, {"code", NormConstant::code}};
  return names;
}

void validate(const ActivationsConfig& config, const codec::GradientConfig& gradient, int64_t hidden,
              int64_t attention_width, int64_t kv_width, int64_t intermediate) {
  check_codecs(config);
  const auto form = codec::gradient_forms().value(gradient.form, "weight_gradient.form");
  check_together(config, form);
  codec::validate(config.qkv_input, key_of("qkv_input"), hidden);
  codec::validate(config.gate_up_input, key_of("gate_up_input"), hidden);
  if (config.norm.codec != "shared") codec::validate(config.norm, key_of("norm"), hidden);
  codec::validate(config.qkv, key_of("qkv"), std::min(attention_width, kv_width));
  codec::validate(config.attention_output, key_of("attention_output"), attention_width);
  codec::validate(config.gate_up, key_of("gate_up"), intermediate);
  codec::validate(config.down_input, key_of("down_input"), intermediate);
  check_known(config.block, block_codecs(), "activations.block.codec", "possible for a block");
  norm_constants().value(config.norm_constant, "activations.norm_constant");
  if (form == codec::GradientForm::low_rank) {
    subspace::validate(gradient.projector, "weight_gradient", std::min({hidden, attention_width, intermediate}));
  }
}

}  // namespace llmz::nn
