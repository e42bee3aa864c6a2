#pragma once

#include <memory>
#include <string>
#include <vector>

#include "llmz/model/model.h"

namespace llmz::model {

/// An architecture as a list of options: what llama.cpp and gpt2.cpp write down and `assemble` builds.
struct Recipe {
  struct Layer {
    nn::AttentionOptions attention;
    nn::MlpOptions mlp;
  };
  nn::EmbeddingOptions embedding;
  std::vector<Layer> blocks;
  nn::NormOptions head_norm;
  std::string head_part;  ///< Hugging Face's name of the head; empty = tied to the embedding table
};

/// Builds the layers in the order of the forward pass, which is the order of the parameters.
std::unique_ptr<Model> assemble(const ModelConfig& config, const BuildOptions& options, Memory& memory, Recipe recipe);

}  // namespace llmz::model
