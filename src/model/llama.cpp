#include "llmz/model/model.h"
#include "src/model/recipe.h"

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
          .rotary = true,
          .rope_base = c.rope_base,
          .norm = norm(c, name + ".norm", hf + "input_layernorm.weight"),
          .qkv = {.name = name + ".qkv",
                  .in = c.hidden,
                  .out = (heads + 2 * kv) * d,
                  .init_std = c.init_std,
                  .weight_parts = {{hf + "self_attn.q_proj.weight", 0, heads * d, false},
                                   {hf + "self_attn.k_proj.weight", heads * d, kv * d, false},
                                   {hf + "self_attn.v_proj.weight", (heads + kv) * d, kv * d, false}},
                  .bias_part = ""},
          .out = {.name = name + ".out",
                  .in = heads * d,
                  .out = c.hidden,
                  .group = ParamGroup::attention_output,
                  .init_std = c.init_std,
                  .weight_parts = {{hf + "self_attn.o_proj.weight", 0, c.hidden, false}},
                  .bias_part = ""}};
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
                                  {hf + "mlp.up_proj.weight", c.intermediate, c.intermediate, false}},
                 .bias_part = ""},
          .down = {.name = name + ".down",
                   .in = c.intermediate,
                   .out = c.hidden,
                   .init_std = c.init_std,
                   .weight_parts = {{hf + "mlp.down_proj.weight", 0, c.hidden, false}},
                   .bias_part = ""}};
}

}  // namespace

std::unique_ptr<Model> make_llama(const ModelConfig& c, const BuildOptions& options, Memory& memory) {
  Recipe recipe;
  recipe.embedding = {.name = "embedding",
                      .vocab = c.vocab_size,
                      .hidden = c.hidden,
                      .positions = 0,
                      .init_std = c.init_std,
                      .table_part = "model.embed_tokens.weight",
                      .positions_part = ""};
  for (int64_t i = 0; i < c.layers; ++i) {
    recipe.blocks.push_back({attention(c, i), mlp(c, i)});
  }
  recipe.head_norm = norm(c, "head.norm", "model.norm.weight");
  recipe.head_part = "lm_head.weight";
  return assemble(c, options, memory, std::move(recipe));
}

}  // namespace llmz::model
