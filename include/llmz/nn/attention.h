#pragma once

#include <optional>

#include "llmz/nn/norm.h"
#include "llmz/ops/attention.h"

namespace llmz::nn {

/// Keys and values of the tokens seen so far, for generation. k, v [B, capacity, kv_heads, D].
struct KvCache {
  Tensor k, v;
};

/// Rotary positions (ops::rotary) of query and key.
struct Rotary {
  float base = 10000.0f;
};

struct AttentionOptions {
  std::string name;
  int64_t hidden = 0, heads = 0, kv_heads = 0;
  int64_t head_dim = 0;  ///< a head's width, whatever hidden/heads is
  bool causal = true;    ///< false: tokens see those after them too
  int64_t window = 0;    ///< tokens see only those nearer than this; 0 = however far
  std::optional<Rotary> rotary = {};
  std::optional<NormOptions> query_norm = {};  ///< RMSNorm of each head, of width head_dim, then rotary
  std::optional<NormOptions> key_norm = {};    ///< with query_norm, or neither
  NormPlace place = NormPlace::before;
  NormOptions norm;
  LinearOptions qkv, out;
};

/// The attention half of a block: x += Wo·attention(Wqkv·norm(x)), or with the norm after (NormPlace). Keeps codes of
/// q, k, v (rotated; with norms of query and key as the product gave them, and backward makes the rest again), of the
/// output o, which is also the output projection's input, and the rows' log-sum-exp. Where o is kept as a sketch,
/// attention's backward does without it.
class AttentionHalf {
 public:
  AttentionHalf(BuildContext& context, AttentionOptions options);

  /// x [T,hidden], in place. With a cache, keys and values are appended at pass.position and all of it is attended to.
  void forward(Exec& exec, const Pass& pass, Tensor x, KvCache* cache);
  /// dx [T,hidden]: the gradient after the half becomes the gradient before it, in place.
  void backward(Exec& exec, const Pass& pass, Tensor dx);

 private:
  struct Heads {
    Tensor q, k, v;  ///< [B,S,heads or kv_heads,D] views of one [T, (heads + 2·kv_heads)·D] buffer
  };
  Heads split(const Pass& pass, Tensor qkv) const;
  Heads split_normed(const Pass& pass, Tensor qk, Tensor v) const;
  Heads normalise(Exec& exec, const Pass& pass, const Heads& from, Buffer& qk, Tensor xhat);
  void rotate(Exec& exec, const Pass& pass, const Heads& heads, bool inverse) const;
  ops::AttentionMask mask(const Pass& pass) const { return {options_.causal, options_.window, pass.lengths}; }
  void normed_backward(Exec& exec, const Pass& pass, Tensor dqkv, Tensor dout, Tensor out, Tensor qkv);
  Shape by_head(const Pass& pass) const { return {pass.batch, pass.sequence, options_.heads, options_.head_dim}; }
  void output_backward(Exec& exec, Tensor dx, Tensor dout, Buffer& out);
  int64_t qkv_width() const { return (options_.heads + 2 * options_.kv_heads) * options_.head_dim; }
  int64_t qk_width() const { return (options_.heads + options_.kv_heads) * options_.head_dim; }

  AttentionOptions options_;
  Precision precision_;
  NormLinear qkv_linear_;
  std::unique_ptr<codec::Codec> qkv_code_, out_code_;
  Linear out_linear_;
  std::optional<Norm> query_norm_, key_norm_;
  std::string qkv_name_, qk_name_, out_name_, lse_name_;
  Buffer lse_;
};

}  // namespace llmz::nn
