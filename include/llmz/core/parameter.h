#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "llmz/core/projector.h"
#include "llmz/core/tensor.h"

namespace llmz {

/// A weight's gradient as a backward pass leaves it, summed over micro-batches.
struct WeightGrad {
  Tensor dense;     ///< [m,n], the weight's own shape; absent when the gradient is low-rank or there is none
  LowRankGrad low;  ///< instead of `dense`

  /// What is accumulated: `dense` or the low-rank factor; absent in a model without gradients.
  Tensor accumulator() const { return low.present() ? low.factor : dense; }
};

/// What learning-rate scales and weight decay distinguish.
enum class ParamGroup : uint8_t { blocks, attention_output, embedding, head, norms };
enum class ParamKind : uint8_t { matrix, gain, bias, embedding };

/// One tensor as Hugging Face names and stores it: rows [row, row + rows) of the parameter, transposed on disk where
/// `transposed` (GPT-2 keeps its matrices as [in, out]).
struct ParameterPart {
  std::string name;
  int64_t row = 0, rows = 0;
  bool transposed = false;
};

/// Which rows of a whole parameter an object stands for, where ranks share the work of the optimizer.
struct RowShard {
  int64_t first = 0;  ///< row of the whole that is this one's row 0
  int64_t whole = 0;  ///< rows of the whole, without padding; 0: this is the whole
};

/// A trained tensor. Several of Hugging Face's tensors may share one (query, key and value are the rows of one
/// matrix): the engine then makes one product where there were three.
struct Parameter {
  std::string name;
  Tensor weight;  ///< [m,n] or [n]
  WeightGrad grad;
  ParamGroup group = ParamGroup::blocks;
  ParamKind kind = ParamKind::matrix;
  float init_mean = 0, init_std = 0;  ///< initial values are N(init_mean, init_std²)
  RowShard shard;
  int64_t padded_rows = 0;  ///< that weight and gradient have room for; what follows the last row is zero
  std::vector<ParameterPart> parts;

  /// The rows of `whole` (the weight, its gradient or an optimizer state of the same shape) that belong to `part`.
  static Tensor rows_of(const Tensor& whole, const ParameterPart& part) { return whole.slice(0, part.row, part.rows); }
  /// `tensor` (the weight, the gradient's accumulator) with the room behind its last row.
  Tensor padded(const Tensor& tensor) const {
    Tensor all = tensor;
    all.shape[0] = padded_rows;
    return all;
  }
};

}  // namespace llmz
