#include "llmz/nn/attention.h"

#include "llmz/ops/attention.h"
#include "llmz/ops/elementwise.h"

namespace llmz::nn {

namespace {

/// Query, key and value are the rows of one matrix.
AttentionOptions fused(AttentionOptions o) {
  using Role = FusedMatrix::Role;
  const int64_t query = o.heads * o.head_dim, key = o.kv_heads * o.head_dim;
  o.qkv.fused = {{Role::query, 0, query, o.heads},
                 {Role::key, query, key, o.kv_heads},
                 {Role::value, query + key, key, o.kv_heads}};
  return o;
}

}  // namespace

AttentionHalf::AttentionHalf(BuildContext& context, AttentionOptions options)
    : options_(fused(std::move(options))),
      precision_(context.precision),
      qkv_linear_(context, options_.norm, options_.qkv, context.activations.qkv_input),
      qkv_code_(context.make_codec(context.activations.qkv, options_.name + ".qkv",
                                   {options_.heads * options_.head_dim, options_.kv_heads * options_.head_dim,
                                    options_.kv_heads * options_.head_dim},
                                   /*linear_input=*/false)),
      out_code_(context.make_codec(context.activations.attention_output, options_.name + ".out",
                                   {options_.heads * options_.head_dim}, /*linear_input=*/true)),
      out_linear_(context, options_.out, *out_code_),
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
  const int64_t tokens = pass.tokens(), width = options_.heads * options_.head_dim;

  Buffer qkv = exec.memory.take(qkv_name_, pass.category(*qkv_code_), {tokens, qkv_width()}, precision_.activation);
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

  Buffer out = exec.memory.take(out_name_, pass.category(*out_code_), {tokens, width}, precision_.activation);
  Buffer lse = exec.memory.take(lse_name_, pass.keep ? Category::codes : Category::activations,
                                {pass.batch, options_.heads, pass.sequence}, precision_.statistic());
  ops::attention_forward(exec, out.tensor().reshape(by_head(pass)), lse.tensor(), h.q, h.k, h.v);
  out_linear_.forward(exec, x, out.tensor(), /*accumulate=*/true);

  if (pass.observe) {
    qkv_code_->observe(exec, qkv.tensor());
    out_code_->observe(exec, out.tensor());
  }
  if (!pass.keep) return;
  qkv_code_->keep(exec, std::move(qkv), nullptr);
  out_code_->keep(exec, std::move(out), nullptr);
  lse_ = std::move(lse);
}

/// Through the output projection: its weight gradient, and dout. `out` becomes o, or stays empty where only a sketch of
/// it is kept.
void AttentionHalf::output_backward(Exec& exec, Tensor dx, Tensor dout, Buffer& out) {
  if (!out_code_->facts().is_sketch) out = out_code_->decode(exec);
  out_linear_.weight_gradient(exec, dx, *out_code_, out.tensor());
  if (out_code_->exact_input().present()) out_linear_.probe(exec, dx, out_code_->exact_input());
  out_code_->drop();
  out_linear_.input_gradient(exec, dout, dx);
}

void AttentionHalf::backward(Exec& exec, const Pass& pass, Tensor dx) {
  const int64_t tokens = pass.tokens();
  Buffer dout = exec.memory.take("attention.dout", Category::activations, {tokens, options_.heads * options_.head_dim},
                                 precision_.activation);
  Buffer out;
  output_backward(exec, dx, dout.tensor(), out);

  const Buffer dqkv =
      exec.memory.take("attention.dqkv", Category::activations, {tokens, qkv_width()}, precision_.activation);
  Buffer qkv = qkv_code_->decode(exec);
  qkv_code_->drop();
  const Heads h = split(pass, qkv.tensor()), dh = split(pass, dqkv.tensor());
  const Tensor out_heads = out ? out.tensor().reshape(by_head(pass)) : Tensor();
  ops::attention_backward(exec, dh.q, dh.k, dh.v, dout.tensor().reshape(by_head(pass)), out_heads, lse_.tensor(), h.q,
                          h.k, h.v);
  dout.reset();
  out.reset();
  lse_.reset();
  Buffer row_sums;
  if (qkv_linear_.wants_row_sums()) {  // a rotation changes no scalar product: rotated rows serve
    row_sums = exec.memory.take("attention.row_sums", Category::activations, {tokens}, precision_.statistic());
    ops::row_dot(exec, row_sums.tensor(), dqkv.tensor(), qkv.tensor());
  }
  qkv.reset();
  if (options_.rotary) {
    ops::rotary(exec, dh.q, pass.position, options_.rope_base, true);
    ops::rotary(exec, dh.k, pass.position, options_.rope_base, true);
  }
  qkv_linear_.backward(exec, dx, dqkv.tensor(), row_sums.tensor());
}

}  // namespace llmz::nn
