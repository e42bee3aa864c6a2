#include <cmath>

#include "llmz/core/decimal.h"
#include "src/model/architecture.h"

namespace llmz::model {
namespace {

nn::NormOptions norm(const ModelConfig& c, std::string name, const std::string& part) {
  return {.name = std::move(name),
          .kind = nn::NormKind::layer,
          .width = c.hidden,
          .eps = c.norm_eps,
          .gain_part = part + ".weight",
          .bias_part = part + ".bias"};
}

/// Hugging Face keeps GPT-2's matrices as [in, out].
nn::LinearOptions linear(std::string name, int64_t in, int64_t out, float init_std, const std::string& part,
                         ParamGroup group = ParamGroup::blocks) {
  return {.name = std::move(name),
          .in = in,
          .out = out,
          .group = group,
          .init_std = init_std,
          .weight_parts = {{part + ".weight", 0, out, true}},
          .bias_parts = {{part + ".bias", 0, out, false}}};
}

/// Projections that write into the residual stream start smaller: their sum over depth keeps its size.
float residual_std(const ModelConfig& c) { return c.init_std / std::sqrt(2.0f * static_cast<float>(c.layers)); }

nn::AttentionOptions attention(const ModelConfig& c, int64_t layer) {
  const std::string name = fmt::format("layers.{}.attention", layer);
  const std::string hf = fmt::format("transformer.h.{}.", layer);
  return {.name = name,
          .hidden = c.hidden,
          .heads = c.heads,
          .kv_heads = c.heads,
          .head_dim = c.head_dim(),
          .norm = norm(c, name + ".norm", hf + "ln_1"),
          .qkv = linear(name + ".qkv", c.hidden, 3 * c.hidden, c.init_std, hf + "attn.c_attn"),
          .out = linear(name + ".out", c.hidden, c.hidden, residual_std(c), hf + "attn.c_proj",
                        ParamGroup::attention_output)};
}

nn::MlpOptions mlp(const ModelConfig& c, int64_t layer) {
  const std::string name = fmt::format("layers.{}.mlp", layer);
  const std::string hf = fmt::format("transformer.h.{}.", layer);
  return {.name = name,
          .kind = nn::MlpKind::gelu_tanh,
          .hidden = c.hidden,
          .intermediate = c.intermediate,
          .norm = norm(c, name + ".norm", hf + "ln_2"),
          .up = linear(name + ".up", c.hidden, c.intermediate, c.init_std, hf + "mlp.c_fc"),
          .down = linear(name + ".down", c.intermediate, c.hidden, residual_std(c), hf + "mlp.c_proj")};
}

Recipe recipe(const ModelConfig& c) {
  Recipe r;
  r.embedding = {.name = "embedding",
                 .vocab = c.vocab_size,
                 .hidden = c.hidden,
                 .positions = c.context,
                 .init_std = c.init_std,
                 .table_part = "transformer.wte.weight",
                 .positions_part = "transformer.wpe.weight"};
  for (int64_t i = 0; i < c.layers; ++i) {
    r.blocks.push_back({attention(c, i), mlp(c, i)});
  }
  r.head = next_token(c, norm(c, "head.norm", "transformer.ln_f"));
  return r;
}

Json to_hf(const ModelConfig& c) {
  return {{"architectures", {"GPT2LMHeadModel"}},
          {"model_type", "gpt2"},
          {"vocab_size", c.vocab_size},
          {"n_embd", c.hidden},
          {"n_inner", c.intermediate},
          {"n_layer", c.layers},
          {"n_head", c.heads},
          {"n_positions", c.context},
          {"n_ctx", c.context},
          {"activation_function", "gelu_new"},
          {"layer_norm_epsilon", decimal_double(c.norm_eps)},
          {"embd_pdrop", 0.0},
          {"attn_pdrop", 0.0},
          {"resid_pdrop", 0.0},
          {"initializer_range", decimal_double(c.init_std)},
          {"tie_word_embeddings", true}};
}

ModelConfig from_hf(const HfReader& hf) {
  hf.only("activation_function", {"gelu_new", "gelu_pytorch_tanh"}, "GPT-2's activation is tanh GELU (gelu_new) here");
  hf.only("tie_word_embeddings", {true}, "GPT-2's head is the token embedding here");
  hf.only("scale_attn_weights", {true}, "attention is scaled by 1/sqrt(head width) here");
  hf.only("scale_attn_by_inverse_layer_idx", {false}, "attention is scaled by 1/sqrt(head width) here");
  hf.only("add_cross_attention", {false}, "there is no cross-attention here");
  ModelConfig c;
  c.vocab_size = hf.count("vocab_size");
  c.hidden = hf.count("n_embd");
  c.intermediate = hf.count("n_inner", 4 * c.hidden);
  c.layers = hf.count("n_layer");
  c.heads = hf.count("n_head");
  c.context = hf.count("n_positions");
  c.norm_eps = hf.number("layer_norm_epsilon", 1e-5f);
  c.init_std = hf.number("initializer_range", 0.02f);
  return c;
}

}  // namespace

Architecture gpt2() {
  return {.name = "gpt2",
          .title = "GPT-2",
          .meaning = "LayerNorm, learned positions, GELU, biases, head tied to the embedding",
          .hf_type = "gpt2",
          .keys = {},
          .check = nullptr,
          .recipe = recipe,
          .to_hf = to_hf,
          .from_hf = from_hf};
}

}  // namespace llmz::model
