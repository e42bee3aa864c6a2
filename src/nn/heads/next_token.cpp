#include "llmz/nn/heads/next_token.h"

#include <algorithm>

#include "llmz/ops/elementwise.h"
#include "llmz/ops/loss.h"
#include "llmz/ops/matmul.h"

namespace llmz::nn {

LossHead::LossHead(BuildContext& context, LossHeadOptions options)
    : options_(std::move(options)), precision_(context.precision), norm_(context, options_.norm) {
  if (options_.tied != nullptr) return;
  head_.name = "head.weight";
  head_.group = ParamGroup::head;
  head_.init_std = options_.init_std;
  head_.parts = {{options_.head_part, 0, options_.vocab, false}};
  context.add(head_, {options_.vocab, options_.hidden});
}

void LossHead::forward(Exec& exec, const Pass& pass, Tensor losses, Tensor x, Tensor targets, float grad_scale) {
  const int64_t tokens = pass.tokens(), chunk = std::min(options_.chunk, tokens);
  Buffer out = exec.memory.take("head.input", Category::activations, {tokens, options_.hidden}, precision_.activation);
  if (pass.keep) {
    xhat_ = exec.memory.take("head.xhat", Category::codes, {tokens, options_.hidden}, precision_.activation);
  }
  norm_.forward(exec, pass, out.tensor(), xhat_.tensor(), x);
  const Buffer logits =
      exec.memory.take("head.logits", Category::workspace, {chunk, options_.vocab}, precision_.activation);
  for (int64_t first = 0; first < tokens; first += chunk) {
    const int64_t count = std::min(chunk, tokens - first);
    const Tensor z = logits.tensor().slice(0, 0, count), h = out.tensor().slice(0, first, count);
    ops::matmul(exec, {.c = z, .a = h, .b = head().weight, .transpose_b = true});
    ops::softmax_cross_entropy(exec, losses.slice(0, first, count), z, targets.slice(0, first, count), pass.keep,
                               grad_scale);
    if (!pass.keep) continue;
    ops::matmul(exec, {.c = head().grad.dense, .a = z, .b = h, .transpose_a = true, .accumulate = true});
    ops::matmul(exec, {.c = h, .a = z, .b = head().weight});  // the input's gradient takes the input's place
  }
  if (pass.keep) dout_ = std::move(out);
}

void LossHead::backward(Exec& exec, Tensor dx) {
  norm_.backward(exec, dx, dout_.tensor(), xhat_.tensor());
  dout_.reset();
  xhat_.reset();
}

void LossHead::last_logits(Exec& exec, const Pass& pass, Tensor logits, Tensor x) {
  const int64_t hidden = options_.hidden;
  const Buffer last = exec.memory.take("head.last", Category::activations, {pass.batch, hidden}, precision_.activation);
  const Tensor from = x.reshape({pass.batch, pass.sequence, hidden}).slice(1, pass.sequence - 1, 1);
  ops::copy(exec, last.tensor().reshape({pass.batch, 1, hidden}), from);
  const Buffer out = exec.memory.take("head.input", Category::activations, {pass.batch, hidden}, precision_.activation);
  Pass row = pass;
  row.sequence = 1;
  norm_.forward(exec, row, out.tensor(), {}, last.tensor());
  ops::matmul(exec, {.c = logits, .a = out.tensor(), .b = head().weight, .transpose_b = true});
}

}  // namespace llmz::nn
