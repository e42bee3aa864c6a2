#include "llmz/nn/embedding.h"

#include "llmz/ops/embedding.h"

namespace llmz::nn {

Embedding::Embedding(BuildContext& context, EmbeddingOptions options) {
  table_.name = options.name + ".table";
  table_.group = ParamGroup::embedding;
  table_.kind = ParamKind::embedding;
  table_.init_std = options.init_std;
  table_.parts = {{options.table_part, 0, options.vocab, false}};
  context.add(table_, {options.vocab, options.hidden});
  if (options.positions == 0) return;
  positions_.name = options.name + ".positions";
  positions_.group = ParamGroup::embedding;
  positions_.kind = ParamKind::embedding;
  positions_.init_std = options.init_std;
  positions_.parts = {{options.positions_part, 0, options.positions, false}};
  context.add(positions_, {options.positions, options.hidden});
}

void Embedding::forward(Exec& exec, const Pass& pass, Tensor x, Tensor tokens) {
  ops::embedding_forward(exec, x, tokens, table_.weight, positions_.weight, pass.sequence, pass.position);
}

void Embedding::backward(Exec& exec, const Pass& pass, Tensor dx, Tensor tokens) {
  ops::embedding_backward(exec, table_.grad.dense, positions_.grad.dense, dx, tokens, pass.sequence);
}

}  // namespace llmz::nn
