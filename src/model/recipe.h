#pragma once

#include <functional>
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
  using MakeHead = std::function<std::unique_ptr<nn::Head>(nn::BuildContext&, nn::Embedding&)>;
  MakeHead head;
};

/// The head of a language model: the last norm and a matrix under Hugging Face's name `part`; without a name the
/// embedding table serves.
Recipe::MakeHead next_token(const ModelConfig& config, nn::NormOptions norm, std::string part = "");

/// Builds the layers in the order of the forward pass, which is the order of the parameters.
std::unique_ptr<Model> assemble(const ModelConfig& config, const BuildOptions& options, Memory& memory, Recipe recipe);

}  // namespace llmz::model
