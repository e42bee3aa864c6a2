#pragma once

#include <string>
#include <vector>

#include "llmz/codec/config.h"

namespace llmz::nn {

/// Whether a block keeps what its layers keep, or its input alone, from which its forward runs again in backward.
enum class BlockCodec : uint8_t { store, recompute };
const config::Names<BlockCodec>& block_codecs();

/// Where a norm's backward takes mean(dx̂·x̂) from when it has x̂ only approximately: `outputs` of the linear layer
/// (exact, see docs/methods.md), or the `code` itself (as PRAC does).
enum class NormConstant : uint8_t { outputs, code };
const config::Names<NormConstant>& norm_constants();

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
  BlockCodec block = BlockCodec::store;
  NormConstant norm_constant = NormConstant::outputs;
};

/// One role: its JSON key, the member, and the codecs that say that they serve it.
struct ActivationRole {
  const char* key;
  codec::CodecConfig ActivationsConfig::*config;
  std::vector<std::string> codecs;
  const char* meaning;
};
const std::vector<ActivationRole>& activation_roles();

/// Throws Error naming the key for settings that are impossible at these widths or mean nothing together.
void validate(const ActivationsConfig& config, const codec::GradientConfig& gradient, int64_t hidden,
              int64_t attention_width, int64_t kv_width, int64_t intermediate);

}  // namespace llmz::nn
