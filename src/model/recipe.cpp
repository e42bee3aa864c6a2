#include "src/model/recipe.h"

namespace llmz::model {

std::unique_ptr<Model> assemble(const ModelConfig& config, const BuildOptions& options, Memory& memory, Recipe recipe) {
  nn::validate(options.activations, options.weight_gradient, config.hidden, config.heads * config.head_dim(),
               config.kv_heads_or_heads() * config.head_dim(), config.intermediate);
  Model::Parts parts;
  parts.clock = std::make_unique<subspace::Clock>();
  parts.clock->seed = options.seed;
  nn::BuildContext context{.memory = memory,
                           .precision = options.precision,
                           .gradients = options.gradients,
                           .row_multiple = options.row_multiple,
                           .probes = options.probes,
                           .activations = options.activations,
                           .weight_gradient = options.weight_gradient,
                           .clock = parts.clock.get()};
  const bool checkpoint = options.activations.block == "recompute";
  const auto begin_part = [&] { parts.begins.push_back(context.parameters.size()); };
  begin_part();
  parts.embedding = std::make_unique<nn::Embedding>(context, std::move(recipe.embedding));
  for (size_t i = 0; i < recipe.blocks.size(); ++i) {
    begin_part();
    auto block = nn::make_block(context, std::move(recipe.blocks[i].attention), std::move(recipe.blocks[i].mlp));
    if (checkpoint) block = nn::make_checkpointed(std::move(block), fmt::format("layers.{}.input", i));
    parts.blocks.push_back(std::move(block));
  }
  nn::LossHeadOptions head{.vocab = config.vocab_size,
                           .hidden = config.hidden,
                           .chunk = options.loss_chunk,
                           .init_std = config.init_std,
                           .norm = std::move(recipe.head_norm),
                           .head_part = recipe.head_part,
                           .tied = recipe.head_part.empty() ? &parts.embedding->table() : nullptr};
  begin_part();
  parts.head = std::make_unique<nn::LossHead>(context, std::move(head));
  begin_part();
  parts.parameters = std::move(context.parameters);
  if (options.gradients) parts.codecs = std::move(context.codecs);
  parts.gradient_probes = std::move(context.gradient_probes);
  return std::make_unique<Model>(config, options.precision, std::move(parts));
}

}  // namespace llmz::model
