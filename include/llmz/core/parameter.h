#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "llmz/core/projector.h"
#include "llmz/core/tensor.h"

namespace llmz {

/// A weight's gradient as a backward pass leaves it, summed over micro-batches.
struct WeightGrad {
  Tensor dense;     ///< [m,n], the weight's own shape; absent when the gradient is low-rank or there is none
  LowRankGrad low;  ///< instead of `dense`
  bool starts_with_product = false;  ///< what a pass adds to `dense` first is a product, and no pass leaves it out
  bool stale = false;                ///< `dense` holds nothing of this step yet, whatever is in it

  /// For a product that goes into `dense`: whether it is added to what is there.
  bool accumulates() { return !std::exchange(stale, false); }
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

/// Which rows of a weight a Parameter holds: all, or, where the optimizer's work is spread over ranks, an equal part.
/// The rows of the parts together may be a few more than the weight has; the last of them are then zeros and stay so.
struct RowShard {
  int64_t first = 0;  ///< of the whole
  int64_t whole = 0;  ///< rows of the whole weight, without what the parts have more; 0: this is the whole
};

/// Which rank alone updates a parameter whole, where the optimizer's work is spread over ranks by matrices.
struct Owner {
  int rank = -1;           ///< −1: no rank alone
  bool elsewhere = false;  ///< it is another than this one: its gradient is not complete here

  bool known() const { return rank >= 0; }
};

/// A matrix by itself among the rows of a fused one, for update rules that take matrices one by one.
struct FusedMatrix {
  enum class Role : uint8_t { all, query, key, value, gate, up };
  Role role = Role::all;
  int64_t row = 0, rows = 0;
  int64_t heads = 1;  ///< equal blocks of rows, one an attention head
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
  int64_t padded_rows = 0;            ///< that weight and gradient have room for; what follows the last row is zero
  std::vector<ParameterPart> parts;
  std::vector<FusedMatrix> fused;  ///< what the rows of a matrix are, in their order; none: one matrix. Of the whole
  uint32_t stream = 0;             ///< of its random numbers: initial values, stochastic rounding
  Owner owner;
  RowShard shard;  ///< what of the whole weight, gradient or factor and row term are here

  /// The rows of `whole` (the weight, its gradient or an optimizer state of the same shape) that belong to `part`.
  static Tensor rows_of(const Tensor& whole, const ParameterPart& part) { return whole.slice(0, part.row, part.rows); }
  /// What of a matrix is a matrix by itself: `fused`, or all of it.
  std::vector<FusedMatrix> matrices() const {
    return fused.empty() ? std::vector<FusedMatrix>{{.rows = weight.dim(0)}} : fused;
  }
  /// `tensor` (the weight, the gradient's accumulator) with the room behind its last row.
  Tensor padded(const Tensor& tensor) const {
    Tensor all = tensor;
    all.shape[0] = padded_rows;
    return all;
  }
};

}  // namespace llmz
