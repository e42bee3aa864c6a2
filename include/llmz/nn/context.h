#pragma once

#include <vector>

#include "llmz/core/exec.h"
#include "llmz/core/parameter.h"

namespace llmz::nn {

/// Element types of a model. Statistics (log-sum-exp, rstd, losses) are f32, or f64 in a model that is f64 throughout.
struct Precision {
  DType weight = DType::f32;
  DType activation = DType::f32;
  DType statistic() const { return activation == DType::f64 ? DType::f64 : DType::f32; }
};

/// What layers are built with. Each layer owns its parameters and announces them here.
struct BuildContext {
  Memory& memory;
  Precision precision;
  bool gradients = true;  ///< false: weights only, for evaluation and generation
  std::vector<Parameter*> parameters;

  /// Allocates weight (and gradient) of `p`, whose other fields are set, and lists it.
  void add(Parameter& p, Shape shape);
};

/// One call of a layer: `batch` sequences of `sequence` tokens, rows of x are tokens in that order.
struct Pass {
  int64_t batch = 1, sequence = 1;
  int64_t position = 0;  ///< position of each sequence's first token
  bool keep = false;     ///< a backward pass will follow
  int64_t tokens() const { return batch * sequence; }
};

}  // namespace llmz::nn
