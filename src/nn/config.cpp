#include "llmz/nn/config.h"

#include <algorithm>

#include "llmz/codec/settings.h"
#include "llmz/core/error.h"

namespace llmz::nn {
namespace {

std::string key_of(const char* role) { return std::string("activations.") + role; }

void check_codecs(const ActivationsConfig& config) {
  for (const ActivationRole& role : activation_roles()) {
    const std::string& codec = (config.*role.config).codec;
    check(std::find(role.codecs.begin(), role.codecs.end(), codec) != role.codecs.end(),
          "{}.codec = \"{}\" is not possible for this tensor; allowed: {}", key_of(role.key), codec,
          fmt::join(role.codecs, ", "));
  }
}

/// Settings that contradict each other.
void check_together(const ActivationsConfig& config, codec::GradientForm form) {
  const auto keeps = [](const codec::CodecConfig& c) { return codec::codec_row(c.codec).keeps; };
  for (const auto& [role, input] :
       {std::pair{"qkv_input", &config.qkv_input}, {"gate_up_input", &config.gate_up_input}}) {
    check(keeps(config.norm) || keeps(*input),
          "activations.{0}.codec = \"{1}\" with activations.norm.codec = \"{2}\" would keep nothing to make the "
          "input from: choose store, sketch or quant for it, or another activations.norm.codec",
          role, input->codec, config.norm.codec);
  }
  const auto is_sketch = [](const codec::CodecConfig& c) { return codec::codec_row(c.codec).is_sketch; };
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

const config::Names<BlockCodec>& block_codecs() {
  static const config::Names<BlockCodec> names = {{"store", BlockCodec::store}, {"recompute", BlockCodec::recompute}};
  return names;
}

const config::Names<NormConstant>& norm_constants() {
  static const config::Names<NormConstant> names = {{"outputs", NormConstant::outputs}, {"code", NormConstant::code}};
  return names;
}

void validate(const ActivationsConfig& config, const codec::GradientConfig& gradient, int64_t hidden,
              int64_t attention_width, int64_t kv_width, int64_t intermediate) {
  check_codecs(config);
  check_together(config, gradient.form);
  codec::validate(config.qkv_input, key_of("qkv_input"), hidden);
  codec::validate(config.gate_up_input, key_of("gate_up_input"), hidden);
  if (codec::codec_row(config.norm.codec).make != nullptr) codec::validate(config.norm, key_of("norm"), hidden);
  codec::validate(config.qkv, key_of("qkv"), std::min(attention_width, kv_width));
  codec::validate(config.attention_output, key_of("attention_output"), attention_width);
  codec::validate(config.gate_up, key_of("gate_up"), intermediate);
  codec::validate(config.down_input, key_of("down_input"), intermediate);
  if (gradient.form == codec::GradientForm::low_rank) {
    subspace::validate(gradient.projector, "weight_gradient", std::min({hidden, attention_width, intermediate}));
  }
}

}  // namespace llmz::nn
