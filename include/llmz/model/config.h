#pragma once

#include <cstdint>
#include <string>

#include "llmz/config/fields.h"

namespace llmz::model {

/// A model's shape (JSON `model`). Counts are elements; `architecture` is a name of the model registry.
struct ModelConfig {
  std::string architecture = "llama";
  int64_t vocab_size = 32000;
  int64_t hidden = 512;
  int64_t intermediate = 1376;  ///< width of the MLP
  int64_t layers = 8;
  int64_t heads = 8;
  int64_t kv_heads = 0;    ///< key/value heads; 0 = as many as `heads`
  int64_t context = 1024;  ///< longest sequence; the number of learned positions of gpt2
  float norm_eps = 1e-6f;  ///< GPT-2's own value is 1e-5
  float rope_base = 10000.0f;
  float init_std = 0.02f;  ///< initial weights are N(0, init_std²)
  config::Bag own = {};    ///< settings of architectures that take others than these

  int64_t head_dim() const { return hidden / heads; }
  int64_t kv_heads_or_heads() const { return kv_heads > 0 ? kv_heads : heads; }
};

/// Throws Error naming the key (`model.heads`, …) that makes the shape impossible.
void validate(const ModelConfig& config);

}  // namespace llmz::model
