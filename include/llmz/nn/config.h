#pragma once

#include "llmz/codec/config.h"

namespace llmz::nn {

/// What each layer keeps for its backward pass, by tensor role (JSON `activations`).
struct ActivationsConfig {
  codec::CodecConfig input;           ///< norm output, the input of query/key/value and of gate/up
  codec::CodecConfig mlp_down_input;  ///< SwiGLU or GELU product, the input of the down projection
  codec::CodecConfig block;           ///< `recompute` keeps a block's input only and runs its forward again
};

/// Whether blocks run their forward again in backward. Throws Error when `block` names a codec that is neither
/// `store` nor `recompute`.
bool checkpoints_blocks(const ActivationsConfig& config);

}  // namespace llmz::nn
