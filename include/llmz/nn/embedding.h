#pragma once

#include "llmz/nn/context.h"

namespace llmz::nn {

struct EmbeddingOptions {
  std::string name;
  int64_t vocab = 0, hidden = 0;
  int64_t positions = 0;  ///< learned positions; 0 = none
  float init_std = 0.02f;
  std::string table_part, positions_part;
};

/// Token embedding, with learned positions where the model has them.
class Embedding {
 public:
  Embedding(BuildContext& context, EmbeddingOptions options);

  /// x [T,hidden] from tokens [T].
  void forward(Exec& exec, const Pass& pass, Tensor x, Tensor tokens);
  void backward(Exec& exec, const Pass& pass, Tensor dx, Tensor tokens);
  Parameter& table() { return table_; }

 private:
  Parameter table_, positions_;
};

}  // namespace llmz::nn
