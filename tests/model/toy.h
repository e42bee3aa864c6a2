#pragma once

#include <string>

#include "src/model/recipe.h"

namespace llmz::test {

/// What a toy architecture turns on of what blocks can do.
struct Toy {
  const char* name;
  int64_t head_dim = 0;  ///< 0: hidden / heads
  bool causal = true;
  int64_t window = 0;
  bool rotary = true, qk_norm = false;
  nn::NormPlace place = nn::NormPlace::before;
  nn::NormKind norm = nn::NormKind::rms;
  nn::MlpKind mlp = nn::MlpKind::swiglu;
  bool qkv_bias = false, out_bias = false, mlp_bias = false;
  bool tied = false;
};

/// Builds it, as an architecture's own file does.
class ToyArchitecture {
 public:
  ToyArchitecture(const model::ModelConfig& config, const Toy& toy) : c_(config), toy_(toy) {}

  model::Recipe recipe() const {
    model::Recipe r;
    r.embedding = {.name = "embedding",
                   .vocab = c_.vocab_size,
                   .hidden = c_.hidden,
                   .positions = toy_.rotary ? 0 : c_.context,
                   .init_std = c_.init_std,
                   .table_part = "table",
                   .positions_part = "positions"};
    for (int64_t i = 0; i < c_.layers; ++i) r.blocks.push_back({attention(i), mlp(i)});
    r.head = model::next_token(c_, norm("head.norm", c_.hidden), toy_.tied ? "" : "head");
    return r;
  }

 private:
  nn::NormOptions norm(const std::string& name, int64_t width) const {
    return {.name = name,
            .kind = toy_.norm,
            .width = width,
            .eps = c_.norm_eps,
            .gain_part = name + ".gain",
            .bias_part = toy_.norm == nn::NormKind::layer ? name + ".bias" : ""};
  }

  nn::LinearOptions linear(const std::string& name, int64_t in, int64_t out, bool bias) const {
    nn::LinearOptions o{
        .name = name, .in = in, .out = out, .init_std = c_.init_std, .weight_parts = {{name, 0, out, false}}};
    if (bias) o.bias_parts = {{name + ".first", 0, 1, false}, {name + ".rest", 1, out - 1, false}};
    return o;
  }

  nn::AttentionOptions attention(int64_t layer) const {
    const std::string name = fmt::format("layers.{}.attention", layer);
    const int64_t d = toy_.head_dim > 0 ? toy_.head_dim : c_.head_dim(), kv = c_.kv_heads_or_heads();
    nn::AttentionOptions o{.name = name,
                           .hidden = c_.hidden,
                           .heads = c_.heads,
                           .kv_heads = kv,
                           .head_dim = d,
                           .causal = toy_.causal,
                           .window = toy_.window,
                           .place = toy_.place,
                           .norm = norm(name + ".norm", c_.hidden),
                           .qkv = linear(name + ".qkv", c_.hidden, (c_.heads + 2 * kv) * d, toy_.qkv_bias),
                           .out = linear(name + ".out", c_.heads * d, c_.hidden, toy_.out_bias)};
    if (toy_.rotary) o.rotary = nn::Rotary{.base = 100.0f};
    if (toy_.qk_norm) {
      o.query_norm = norm(name + ".query_norm", d);
      o.key_norm = norm(name + ".key_norm", d);
    }
    return o;
  }

  nn::MlpOptions mlp(int64_t layer) const {
    const std::string name = fmt::format("layers.{}.mlp", layer);
    const int64_t up = (toy_.mlp == nn::MlpKind::swiglu ? 2 : 1) * c_.intermediate;
    return {.name = name,
            .kind = toy_.mlp,
            .hidden = c_.hidden,
            .intermediate = c_.intermediate,
            .place = toy_.place,
            .norm = norm(name + ".norm", c_.hidden),
            .up = linear(name + ".up", c_.hidden, up, toy_.mlp_bias),
            .down = linear(name + ".down", c_.intermediate, c_.hidden, toy_.mlp_bias)};
  }

  const model::ModelConfig& c_;
  const Toy& toy_;
};

}  // namespace llmz::test
