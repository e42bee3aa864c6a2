#include "llmz/core/decimal.h"
#include "src/model/architecture.h"

namespace llmz::model {
namespace {

using nn::LinearOptions;
using nn::NormOptions;

NormOptions norm(const ModelConfig& c, std::string name, std::string part) {
  return {.name = std::move(name),
          .kind = nn::NormKind::rms,
          .width = c.hidden,
          .eps = c.norm_eps,
          .gain_part = std::move(part),
          .bias_part = ""};
}

nn::AttentionOptions attention(const ModelConfig& c, int64_t layer) {
  const std::string name = fmt::format("layers.{}.attention", layer);
  const std::string hf = fmt::format("model.layers.{}.", layer);
  const int64_t heads = c.heads, kv = c.kv_heads_or_heads(), d = c.head_dim();
  return {.name = name,
          .hidden = c.hidden,
          .heads = heads,
          .kv_heads = kv,
          .head_dim = d,
          .rotary = nn::Rotary{.base = c.rope_base},
          .norm = norm(c, name + ".norm", hf + "input_layernorm.weight"),
          .qkv = {.name = name + ".qkv",
                  .in = c.hidden,
                  .out = (heads + 2 * kv) * d,
                  .init_std = c.init_std,
                  .weight_parts = {{hf + "self_attn.q_proj.weight", 0, heads * d, false},
                                   {hf + "self_attn.k_proj.weight", heads * d, kv * d, false},
                                   {hf + "self_attn.v_proj.weight", (heads + kv) * d, kv * d, false}}},
          .out = {.name = name + ".out",
                  .in = heads * d,
                  .out = c.hidden,
                  .group = ParamGroup::attention_output,
                  .init_std = c.init_std,
                  .weight_parts = {{hf + "self_attn.o_proj.weight", 0, c.hidden, false}}}};
}

nn::MlpOptions mlp(const ModelConfig& c, int64_t layer) {
  const std::string name = fmt::format("layers.{}.mlp", layer);
  const std::string hf = fmt::format("model.layers.{}.", layer);
  return {.name = name,
          .kind = nn::MlpKind::swiglu,
          .hidden = c.hidden,
          .intermediate = c.intermediate,
          .norm = norm(c, name + ".norm", hf + "post_attention_layernorm.weight"),
          .up = {.name = name + ".gate_up",
                 .in = c.hidden,
                 .out = 2 * c.intermediate,
                 .init_std = c.init_std,
                 .weight_parts = {{hf + "mlp.gate_proj.weight", 0, c.intermediate, false},
                                  {hf + "mlp.up_proj.weight", c.intermediate, c.intermediate, false}}},
          .down = {.name = name + ".down",
                   .in = c.intermediate,
                   .out = c.hidden,
                   .init_std = c.init_std,
                   .weight_parts = {{hf + "mlp.down_proj.weight", 0, c.hidden, false}}}};
}

Recipe recipe(const ModelConfig& c) {
  Recipe r;
  r.embedding = {.name = "embedding",
                 .vocab = c.vocab_size,
                 .hidden = c.hidden,
                 .positions = 0,
                 .init_std = c.init_std,
                 .table_part = "model.embed_tokens.weight",
                 .positions_part = ""};
  for (int64_t i = 0; i < c.layers; ++i) {
    r.blocks.push_back({attention(c, i), mlp(c, i)});
  }
  r.head = next_token(c, norm(c, "head.norm", "model.norm.weight"), "lm_head.weight");
  return r;
}

void check_heads(const ModelConfig& c) {
  check(c.head_dim() % 2 == 0,
        "model.hidden / model.heads = {} / {} = {} must be even: rotary embedding turns pairs of features", c.hidden,
        c.heads, c.head_dim());
}

Json to_hf(const ModelConfig& c) {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"vocab_size", c.vocab_size},
          {"hidden_size", c.hidden},
          {"intermediate_size", c.intermediate},
          {"num_hidden_layers", c.layers},
          {"num_attention_heads", c.heads},
          {"num_key_value_heads", c.kv_heads_or_heads()},
          {"max_position_embeddings", c.context},
          {"hidden_act", "silu"},
          {"rms_norm_eps", decimal_double(c.norm_eps)},
          {"rope_theta", decimal_double(c.rope_base)},
          {"rope_scaling", nullptr},
          {"attention_bias", false},
          {"mlp_bias", false},
          {"attention_dropout", 0.0},
          {"initializer_range", decimal_double(c.init_std)},
          {"tie_word_embeddings", false}};
}

ModelConfig from_hf(const HfReader& hf) {
  hf.only("hidden_act", {"silu", "swish"}, "llama's MLP is SwiGLU here");
  hf.only("attention_bias", {false}, "llama's linear layers have no bias here");
  hf.only("mlp_bias", {false}, "llama's linear layers have no bias here");
  hf.only("tie_word_embeddings", {false}, "llama's head has weights of its own here");
  hf.only("partial_rotary_factor", {1.0}, "rotary embedding turns whole heads here");
  hf.only("sliding_window", {}, "attention sees the whole context here");
  ModelConfig c;
  c.vocab_size = hf.count("vocab_size");
  c.hidden = hf.count("hidden_size");
  c.intermediate = hf.count("intermediate_size");
  c.layers = hf.count("num_hidden_layers");
  c.heads = hf.count("num_attention_heads");
  const int64_t kv_heads = hf.count("num_key_value_heads", c.heads);
  c.kv_heads = kv_heads == c.heads ? 0 : kv_heads;
  c.context = hf.count("max_position_embeddings");
  c.norm_eps = hf.number("rms_norm_eps", 1e-6f);
  c.rope_base = hf.rope_base();
  c.init_std = hf.number("initializer_range", 0.02f);
  hf.only("head_dim", {c.hidden / c.heads}, "a head is hidden_size / num_attention_heads wide here");
  return c;
}

}  // namespace

Architecture llama() {
  return {.name = "llama",
          .title = "LLaMA",
          .meaning = "RMSNorm, rotary positions, SwiGLU, head of its own",
          .hf_type = "llama",
          .keys = {"kv_heads", "rope_base"},
          .check = check_heads,
          .recipe = recipe,
          .to_hf = to_hf,
          .from_hf = from_hf};
}

}  // namespace llmz::model
