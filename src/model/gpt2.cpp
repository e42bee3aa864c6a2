#include <cmath>

#include "llmz/model/model.h"
#include "src/model/recipe.h"

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
          .bias_part = part + ".bias"};
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
          .rotary = false,
          .norm = norm(c, name + ".norm", hf + "ln_1"),
          .qkv = linear(name + ".qkv", c.hidden, 3 * c.hidden, c.init_std, hf + "attn.c_attn"),
          .out = linear(name + ".out", c.hidden, c.hidden, residual_std(c), hf + "attn.c_proj",
                        ParamGroup::attention_output)};
}

nn::MlpOptions mlp(const ModelConfig& c, int64_t layer) {
  const std::string name = fmt::format("layers.{}.mlp", layer);
  const std::string hf = fmt::format("transformer.h.{}.", layer);
  return {.name = name,
          .kind = nn::MlpKind::gelu,
          .hidden = c.hidden,
          .intermediate = c.intermediate,
          .norm = norm(c, name + ".norm", hf + "ln_2"),
          .up = linear(name + ".up", c.hidden, c.intermediate, c.init_std, hf + "mlp.c_fc"),
          .down = linear(name + ".down", c.intermediate, c.hidden, residual_std(c), hf + "mlp.c_proj")};
}

}  // namespace

std::unique_ptr<Model> make_gpt2(const ModelConfig& c, const BuildOptions& options, Memory& memory) {
  Recipe recipe;
  recipe.embedding = {.name = "embedding",
                      .vocab = c.vocab_size,
                      .hidden = c.hidden,
                      .positions = c.context,
                      .init_std = c.init_std,
                      .table_part = "transformer.wte.weight",
                      .positions_part = "transformer.wpe.weight"};
  for (int64_t i = 0; i < c.layers; ++i) {
    recipe.blocks.push_back({attention(c, i), mlp(c, i)});
  }
  recipe.head_norm = norm(c, "head.norm", "transformer.ln_f");
  return assemble(c, options, memory, std::move(recipe));
}

}  // namespace llmz::model
