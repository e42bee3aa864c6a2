#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "llmz/model/config.h"

namespace llmz::model {

/// What Hugging Face's config.json says beside the shape.
struct HfOptions {
  std::string torch_dtype = "float32";  ///< of the weights that lie beside it
  int64_t bos_token_id = -1;            ///< −1: none (null)
  int64_t eos_token_id = -1;
};

/// Text of a config.json for LlamaForCausalLM or GPT2LMHeadModel (transformers ≥ 4.31). Throws Error when `config` is
/// not valid.
std::string to_hf_config(const ModelConfig& config, const HfOptions& options = {});

/// The shape that a config.json describes. Keys that change nothing in llmz (token ids, caches, dropout: llmz trains
/// without) are passed over; whatever would change the mathematics (rope_scaling, biases in llama, a tied llama head,
/// another activation, …) throws Error, as do missing or mistyped keys, naming `source` and the key.
ModelConfig from_hf_config(std::string_view json, const std::string& source = "config.json");

}  // namespace llmz::model
