#include "src/model/recipe.h"

#include "llmz/nn/heads/next_token.h"

namespace llmz::model {

Recipe::MakeHead next_token(const ModelConfig& config, nn::NormOptions norm, std::string part) {
  const nn::NextTokenOptions options{.vocab = config.vocab_size,
                                     .hidden = config.hidden,
                                     .init_std = config.init_std,
                                     .norm = std::move(norm),
                                     .head_part = std::move(part)};
  return [options](nn::BuildContext& context, nn::Embedding& embedding) {
    nn::NextTokenOptions made = options;
    if (made.head_part.empty()) made.tied = &embedding.table();
    return std::make_unique<nn::NextTokenHead>(context, std::move(made));
  };
}

std::unique_ptr<Model> assemble(const ModelConfig& config, const BuildOptions& options, Memory& memory, Recipe recipe) {
  for (const Recipe::Layer& layer : recipe.blocks) {
    const nn::AttentionOptions& a = layer.attention;
    nn::validate(options.activations, options.weight_gradient, a.hidden, a.heads * a.head_dim, a.kv_heads * a.head_dim,
                 layer.mlp.intermediate);
  }
  Model::Parts parts;
  parts.clock = std::make_unique<subspace::Clock>();
  parts.clock->seed = options.seed;
  nn::BuildContext context{.memory = memory,
                           .precision = options.precision,
                           .gradients = options.gradients,
                           .row_multiple = options.row_multiple,
                           .loss_chunk = options.loss_chunk,
                           .probes = options.probes,
                           .activations = options.activations,
                           .weight_gradient = options.weight_gradient,
                           .clock = parts.clock.get(),
                           .weight_streams = {options.streams, 0},
                           .code_streams = {options.streams, 1}};
  const bool checkpoint = options.activations.block == nn::BlockCodec::recompute;
  const auto begin_part = [&] { parts.begins.push_back(context.parameters.size()); };
  begin_part();
  parts.embedding = std::make_unique<nn::Embedding>(context, std::move(recipe.embedding));
  for (size_t i = 0; i < recipe.blocks.size(); ++i) {
    begin_part();
    auto block = nn::make_block(context, std::move(recipe.blocks[i].attention), std::move(recipe.blocks[i].mlp));
    if (checkpoint) block = nn::make_checkpointed(std::move(block), fmt::format("layers.{}.input", i));
    parts.blocks.push_back(std::move(block));
  }
  begin_part();
  parts.head = recipe.head(context, *parts.embedding);
  begin_part();
  parts.parameters = std::move(context.parameters);
  if (options.gradients) parts.codecs = std::move(context.codecs);
  parts.gradient_probes = std::move(context.gradient_probes);
  return std::make_unique<Model>(config, options.precision, std::move(parts));
}

}  // namespace llmz::model
