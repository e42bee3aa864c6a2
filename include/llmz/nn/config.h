#pragma once

#include <string>
#include <vector>

#include "llmz/codec/config.h"

namespace llmz::nn {

/// What each layer keeps for its backward pass, by tensor role (JSON `activations`).
struct ActivationsConfig {
  codec::CodecConfig qkv_input;  ///< input of query/key/value: the normalised x̂, or the norm's output (see `norm`)
  codec::CodecConfig gate_up_input;  ///< input of gate/up (GPT-2: up), likewise
  /// x̂ for the norms' own backward; `shared`: the code of the linear layer's input serves.
  codec::CodecConfig norm = {.codec = "shared"};
  codec::CodecConfig qkv;               ///< query, key, value as attention's backward needs them
  codec::CodecConfig attention_output;  ///< output of attention = input of the output projection
  codec::CodecConfig gate_up;           ///< gate and up (GPT-2: GELU's input) for the backward of SwiGLU or GELU
  codec::CodecConfig down_input;        ///< SwiGLU or GELU product, the input of the down projection
  /// `recompute` keeps a block's input only and runs its forward again; else `store`.
  std::string block = "store";
  /// Where the norm's backward takes mean(dx̂·x̂) from when it has x̂ only approximately: `outputs` of the linear layer
  /// (exact, see docs/methods.md), or the `code` itself (as PRAC does).
  std::string norm_constant = "outputs";
};

/// One role: its JSON key, the member, and the codecs that say that they serve it.
struct ActivationRole {
  const char* key;
  codec::CodecConfig ActivationsConfig::*config;
  std::vector<std::string> codecs;
  const char* meaning;
};
const std::vector<ActivationRole>& activation_roles();
std::vector<std::string> block_codecs();

/// See ActivationsConfig::norm_constant.
enum class NormConstant : uint8_t { outputs, code };
const config::Names<NormConstant>& norm_constants();

/// Throws Error naming the key for settings that are impossible at these widths or mean nothing together.
void validate(const ActivationsConfig& config, const codec::GradientConfig& gradient, int64_t hidden,
              int64_t attention_width, int64_t kv_width, int64_t intermediate);

}  // namespace llmz::nn
