#include "llmz/nn/attention.h"

#include "llmz/ops/attention.h"
#include "llmz/ops/elementwise.h"

namespace llmz::nn {

AttentionHalf::AttentionHalf(BuildContext& context, AttentionOptions options)
    : options_(std::move(options)),
      precision_(context.precision),
      qkv_linear_(context, options_.norm, options_.qkv),
      out_linear_(context, options_.out),
      qkv_name_(options_.name + ".qkv"),
      out_name_(options_.name + ".out"),
      lse_name_(options_.name + ".lse") {}

AttentionHalf::Heads AttentionHalf::split(const Pass& pass, Tensor qkv) const {
  const int64_t all = options_.heads + 2 * options_.kv_heads;
  const Tensor heads = qkv.reshape({pass.batch, pass.sequence, all, options_.head_dim});
  return {heads.slice(2, 0, options_.heads), heads.slice(2, options_.heads, options_.kv_heads),
          heads.slice(2, options_.heads + options_.kv_heads, options_.kv_heads)};
}

void AttentionHalf::forward(Exec& exec, const Pass& pass, Tensor x, KvCache* cache) {
  const Category category = pass.keep ? Category::codes : Category::activations;
  const int64_t tokens = pass.tokens(), width = options_.heads * options_.head_dim;

  Buffer qkv = exec.memory.take(qkv_name_, category, {tokens, qkv_width()}, precision_.activation);
  qkv_linear_.forward(exec, pass, qkv.tensor(), x);
  Heads h = split(pass, qkv.tensor());
  if (options_.rotary) {
    ops::rotary(exec, h.q, pass.position, options_.rope_base, false);
    ops::rotary(exec, h.k, pass.position, options_.rope_base, false);
  }
  if (cache != nullptr) {
    ops::copy(exec, cache->k.slice(1, pass.position, pass.sequence), h.k);
    ops::copy(exec, cache->v.slice(1, pass.position, pass.sequence), h.v);
    h.k = cache->k.slice(1, 0, pass.position + pass.sequence);
    h.v = cache->v.slice(1, 0, pass.position + pass.sequence);
  }

  Buffer out = exec.memory.take(out_name_, category, {tokens, width}, precision_.activation);
  Buffer lse =
      exec.memory.take(lse_name_, category, {pass.batch, options_.heads, pass.sequence}, precision_.statistic());
  const Shape by_head = {pass.batch, pass.sequence, options_.heads, options_.head_dim};
  ops::attention_forward(exec, out.tensor().reshape(by_head), lse.tensor(), h.q, h.k, h.v);
  out_linear_.forward(exec, x, out.tensor(), /*accumulate=*/true);

  if (!pass.keep) return;
  out_linear_.keep(exec, out, nullptr);
  qkv_ = std::move(qkv);
  out_ = std::move(out);
  lse_ = std::move(lse);
}

void AttentionHalf::backward(Exec& exec, const Pass& pass, Tensor dx) {
  const Shape by_head = {pass.batch, pass.sequence, options_.heads, options_.head_dim};
  out_linear_.weight_gradient(exec, dx);
  Buffer dout = exec.memory.take("attention.dout", Category::activations, out_.tensor().shape, precision_.activation);
  out_linear_.input_gradient(exec, dout.tensor(), dx);

  const Buffer dqkv =
      exec.memory.take("attention.dqkv", Category::activations, qkv_.tensor().shape, precision_.activation);
  const Heads h = split(pass, qkv_.tensor()), dh = split(pass, dqkv.tensor());
  ops::attention_backward(exec, dh.q, dh.k, dh.v, dout.tensor().reshape(by_head), out_.tensor().reshape(by_head),
                          lse_.tensor(), h.q, h.k, h.v);
  dout.reset();
  out_.reset();
  lse_.reset();
  qkv_.reset();
  if (options_.rotary) {
    ops::rotary(exec, dh.q, pass.position, options_.rope_base, true);
    ops::rotary(exec, dh.k, pass.position, options_.rope_base, true);
  }
  qkv_linear_.backward(exec, dx, dqkv.tensor());
}

}  // namespace llmz::nn
