#pragma once

#include "llmz/core/tensor.h"

namespace llmz::model {

/// One micro-batch, as an objective made it (data/objective.h). Tensors lie where the model does.
struct Batch {
  Tensor tokens;        ///< [B,S] i32
  Tensor targets = {};  ///< as many as the head gives losses, i32; −1 = none
  Tensor lengths = {};  ///< [B] i32: the tokens of each sequence that are no padding; absent = all
};

}  // namespace llmz::model
