// Runs of a tiny model under presets. It stands with the run layer's tests, which is where presets are; the engine's
// transcription of the papers and the CUDA backend's tests use that layer too.
#pragma once

#include <string>

#include "catch.h"
#include "llmz/run/presets.h"

namespace llmz::test {

/// All projectors are renewed every `steps`.
inline void refresh_every(nn::ActivationsConfig& activations, int64_t steps) {
  for (const nn::ActivationRole& role : nn::activation_roles()) (activations.*role.config).projector.refresh = steps;
}

/// `model` under a preset, on the CPU in fp32 with 4 windows of 16 tokens, all projectors renewed every `refresh`
/// steps.
inline run::RunConfig preset_run(const std::string& preset, const model::ModelConfig& model, int64_t refresh) {
  run::RunConfig config;
  config.model = model;
  config.train.device = "cpu";
  config.train.micro_batch = 4;
  config.train.sequence = 16;
  config.precision.compute = run::Compute::fp32;
  config.optimizer.weight_decay = 0.01f;
  config = run::with_preset(config, preset);
  refresh_every(config.activations, refresh);
  return config;
}

/// f(preset, architecture) of every pair.
template <class F>
void for_every_preset(F&& f) {
  for (const char* architecture : {"llama", "gpt2"}) {
    for (const std::string& name : run::preset_names()) {
      INFO(name << " on " << architecture);
      f(name, architecture);
    }
  }
}

}  // namespace llmz::test
