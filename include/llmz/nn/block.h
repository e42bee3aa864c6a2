#pragma once

#include <memory>

#include "llmz/nn/attention.h"
#include "llmz/nn/mlp.h"

namespace llmz::nn {

/// One residual block of a decoder. The residual stream x and its gradient dx are [T,hidden] and change in place.
class Block {
 public:
  virtual ~Block() = default;
  virtual void forward(Exec& exec, const Pass& pass, Tensor x, KvCache* cache) = 0;
  virtual void backward(Exec& exec, const Pass& pass, Tensor dx) = 0;
};

/// Attention, then MLP; keeps what its layers keep.
std::unique_ptr<Block> make_block(BuildContext& context, AttentionOptions attention, MlpOptions mlp);

/// Activation checkpointing (Chen et al. 2016): keeps the block's input alone and runs its forward again in backward.
std::unique_ptr<Block> make_checkpointed(std::unique_ptr<Block> inner, std::string name);

}  // namespace llmz::nn
