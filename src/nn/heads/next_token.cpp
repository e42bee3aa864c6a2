#include "llmz/nn/heads/next_token.h"

#include <algorithm>

#include "llmz/ops/elementwise.h"
#include "llmz/ops/loss.h"
#include "llmz/ops/matmul.h"

namespace llmz::nn {

NextTokenHead::NextTokenHead(BuildContext& context, NextTokenOptions options)
    : options_(std::move(options)),
      precision_(context.precision),
      chunk_(context.loss_chunk),
      norm_(context, options_.norm) {
  head().grad.starts_with_product = true;  // the loss's; an embedding that is the head gets its own part later
  if (options_.tied != nullptr) return;
  head_.name = "head.weight";
  head_.group = ParamGroup::head;
  head_.init_std = options_.init_std;
  head_.parts = {{options_.head_part, 0, options_.vocab, false}};
  context.add(head_, {options_.vocab, options_.hidden});
}

void NextTokenHead::loss(Exec& exec, const Pass& pass, Tensor losses, Tensor x, Tensor targets, float grad_scale) {
  const int64_t tokens = pass.tokens(), chunk = std::min(chunk_, tokens);
  Buffer out = exec.memory.take("head.input", Category::activations, {tokens, options_.hidden}, precision_.activation);
  if (pass.keep) {
    xhat_ =
        exec.memory.take("head.xhat", Category::codes, {tokens, options_.hidden}, precision_.activation, role::head);
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
    const bool accumulate = head().grad.accumulates();
    ops::matmul(exec, {.c = head().grad.dense, .a = z, .b = h, .transpose_a = true, .accumulate = accumulate});
    ops::matmul(exec, {.c = h, .a = z, .b = head().weight});  // the input's gradient takes the input's place
  }
  if (pass.keep) dout_ = std::move(out);
}

void NextTokenHead::backward(Exec& exec, Tensor dx) {
  norm_.backward(exec, dx, dout_.tensor(), xhat_.tensor());
  dout_.reset();
  xhat_.reset();
}

void NextTokenHead::outputs(Exec& exec, const Pass& pass, Tensor logits, Tensor x, Rows rows) {
  const int64_t hidden = options_.hidden, count = rows == Rows::last ? pass.batch : pass.tokens();
  Buffer last;
  if (rows == Rows::last) {
    last = exec.memory.take("head.last", Category::activations, {count, hidden}, precision_.activation);
    const Tensor from = x.reshape({pass.batch, pass.sequence, hidden}).slice(1, pass.sequence - 1, 1);
    ops::copy(exec, last.tensor().reshape({count, 1, hidden}), from);
    x = last.tensor();
  }
  const Buffer out = exec.memory.take("head.input", Category::activations, {count, hidden}, precision_.activation);
  Pass once = pass;
  once.keep = false;
  norm_.forward(exec, once, out.tensor(), {}, x);
  ops::matmul(exec, {.c = logits, .a = out.tensor(), .b = head().weight, .transpose_b = true});
}

}  // namespace llmz::nn
