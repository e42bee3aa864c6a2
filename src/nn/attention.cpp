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
      qkv_linear_(context, options_.place, options_.norm, options_.qkv, context.activations.qkv_input),
      qkv_code_(context.make_codec(context.activations.qkv, options_.name + ".qkv", role::qkv,
                                   {options_.heads * options_.head_dim, options_.kv_heads * options_.head_dim,
                                    options_.kv_heads * options_.head_dim},
                                   /*linear_input=*/false)),
      out_code_(context.make_codec(context.activations.attention_output, options_.name + ".out", role::attention_output,
                                   {options_.heads * options_.head_dim}, /*linear_input=*/true)),
      out_linear_(context, options_.out, *out_code_),
      qkv_name_(options_.name + ".qkv"),
      qk_name_(options_.name + ".qk"),
      out_name_(options_.name + ".out"),
      lse_name_(options_.name + ".lse") {
  if (!options_.query_norm) return;
  query_norm_.emplace(context, *options_.query_norm);
  key_norm_.emplace(context, *options_.key_norm);
}

AttentionHalf::Heads AttentionHalf::split(const Pass& pass, Tensor qkv) const {
  const int64_t all = options_.heads + 2 * options_.kv_heads;
  const Tensor heads = qkv.reshape({pass.batch, pass.sequence, all, options_.head_dim});
  return {heads.slice(2, 0, options_.heads), heads.slice(2, options_.heads, options_.kv_heads),
          heads.slice(2, options_.heads + options_.kv_heads, options_.kv_heads)};
}

/// q and k of a buffer of their own [T, (heads + kv_heads)·D].
AttentionHalf::Heads AttentionHalf::split_normed(const Pass& pass, Tensor qk, Tensor v) const {
  const Tensor heads = qk.reshape({pass.batch, pass.sequence, options_.heads + options_.kv_heads, options_.head_dim});
  return {heads.slice(2, 0, options_.heads), heads.slice(2, options_.heads, options_.kv_heads), v};
}

/// Query and key normalised and turned, in `qk`; their x̂ where that is present.
AttentionHalf::Heads AttentionHalf::normalise(Exec& exec, const Pass& pass, const Heads& from, Buffer& qk,
                                              Tensor xhat) {
  qk = exec.memory.take(qk_name_, Category::activations, {pass.tokens(), qk_width()}, precision_.activation);
  const Heads to = split_normed(pass, qk.tensor(), from.v);
  const Heads hat = xhat.present() ? split_normed(pass, xhat, {}) : Heads();
  query_norm_->forward(exec, pass, to.q, hat.q, from.q);
  key_norm_->forward(exec, pass, to.k, hat.k, from.k);
  rotate(exec, pass, to, false);
  return to;
}

void AttentionHalf::rotate(Exec& exec, const Pass& pass, const Heads& heads, bool inverse) const {
  if (!options_.rotary) return;
  ops::rotary(exec, heads.q, pass.position, options_.rotary->base, inverse);
  ops::rotary(exec, heads.k, pass.position, options_.rotary->base, inverse);
}

void AttentionHalf::forward(Exec& exec, const Pass& pass, Tensor x, KvCache* cache) {
  const int64_t tokens = pass.tokens(), width = options_.heads * options_.head_dim;

  Buffer qkv =
      exec.memory.take(qkv_name_, pass.category(*qkv_code_), {tokens, qkv_width()}, precision_.activation, role::qkv);
  qkv_linear_.forward(exec, pass, qkv.tensor(), x);
  Heads h = split(pass, qkv.tensor());
  Buffer qk;
  if (query_norm_) {
    Pass once = pass;
    once.keep = false;  // backward does it again
    h = normalise(exec, once, h, qk, {});
  } else {
    rotate(exec, pass, h, false);
  }
  if (cache != nullptr) {
    ops::copy(exec, cache->k.slice(1, pass.position, pass.sequence), h.k);
    ops::copy(exec, cache->v.slice(1, pass.position, pass.sequence), h.v);
    h.k = cache->k.slice(1, 0, pass.position + pass.sequence);
    h.v = cache->v.slice(1, 0, pass.position + pass.sequence);
  }

  Buffer out = exec.memory.take(out_name_, pass.category(*out_code_), {tokens, width}, precision_.activation,
                                role::attention_output);
  Buffer lse = exec.memory.take(lse_name_, pass.keep ? Category::codes : Category::activations,
                                {pass.batch, options_.heads, pass.sequence}, precision_.statistic(), role::statistics);
  ops::attention_forward(exec, out.tensor().reshape(by_head(pass)), lse.tensor(), h.q, h.k, h.v, mask(pass));
  qk.reset();
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

/// dqkv from what the product gave: norms and rotation again, attention's backward, and back through both.
void AttentionHalf::normed_backward(Exec& exec, const Pass& pass, Tensor dqkv, Tensor dout, Tensor out, Tensor qkv) {
  const Shape shape = {pass.tokens(), qk_width()};
  const Buffer xhat = exec.memory.take("attention.qk_xhat", Category::activations, shape, precision_.activation);
  const Buffer dqk = exec.memory.take("attention.dqk", Category::activations, shape, precision_.activation);
  Buffer qk;
  const Heads h = normalise(exec, pass, split(pass, qkv), qk, xhat.tensor());
  ops::fill(exec, dqkv, 0.0);  // the norms add
  const Heads dh = split(pass, dqkv), dn = split_normed(pass, dqk.tensor(), dh.v);
  const Heads hat = split_normed(pass, xhat.tensor(), {});
  ops::attention_backward(exec, dn.q, dn.k, dn.v, dout, out, lse_.tensor(), h.q, h.k, h.v, mask(pass));
  qk.reset();
  rotate(exec, pass, dn, true);
  query_norm_->backward(exec, dh.q, dn.q, hat.q);
  key_norm_->backward(exec, dh.k, dn.k, hat.k);
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
  const Tensor out_heads = out ? out.tensor().reshape(by_head(pass)) : Tensor();
  const Tensor dout_heads = dout.tensor().reshape(by_head(pass));
  if (query_norm_) {
    normed_backward(exec, pass, dqkv.tensor(), dout_heads, out_heads, qkv.tensor());
  } else {
    const Heads h = split(pass, qkv.tensor()), dh = split(pass, dqkv.tensor());
    ops::attention_backward(exec, dh.q, dh.k, dh.v, dout_heads, out_heads, lse_.tensor(), h.q, h.k, h.v, mask(pass));
  }
  dout.reset();
  out.reset();
  lse_.reset();
  Buffer row_sums;
  if (qkv_linear_.wants_row_sums()) {  // a rotation changes no scalar product: rotated rows serve
    row_sums = exec.memory.take("attention.row_sums", Category::activations, {tokens}, precision_.statistic());
    ops::row_dot(exec, row_sums.tensor(), dqkv.tensor(), qkv.tensor());
  }
  qkv.reset();
  if (!query_norm_) rotate(exec, pass, split(pass, dqkv.tensor()), true);
  qkv_linear_.backward(exec, dx, dqkv.tensor(), row_sums.tensor());
}

}  // namespace llmz::nn
