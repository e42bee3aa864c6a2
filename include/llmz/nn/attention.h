#pragma once

#include "llmz/nn/norm.h"

namespace llmz::nn {

/// Keys and values of the tokens seen so far, for generation. k, v [B, capacity, kv_heads, D].
struct KvCache {
  Tensor k, v;
};

struct AttentionOptions {
  std::string name;
  int64_t hidden = 0, heads = 0, kv_heads = 0, head_dim = 0;
  bool rotary = true;
  float rope_base = 10000.0f;
  NormOptions norm;
  LinearOptions qkv, out;
};

/// The attention half of a block: x += Wo·attention(Wqkv·norm(x)). Keeps codes of q, k, v (rotated) and of the output
/// o, which is also the output projection's input, and the rows' log-sum-exp. Where o is kept as a sketch, attention's
/// backward does without it.
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
  Shape by_head(const Pass& pass) const { return {pass.batch, pass.sequence, options_.heads, options_.head_dim}; }
  void output_backward(Exec& exec, Tensor dx, Tensor dout, Buffer& out);
  int64_t qkv_width() const { return (options_.heads + 2 * options_.kv_heads) * options_.head_dim; }

  AttentionOptions options_;
  Precision precision_;
  NormLinear qkv_linear_;
  std::unique_ptr<codec::Codec> qkv_code_, out_code_;
  Linear out_linear_;
  std::string qkv_name_, out_name_, lse_name_;
  Buffer lse_;
};

}  // namespace llmz::nn
