#pragma once

#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <string>

#include "llmz/dist/world.h"
#include "llmz/engine/engine.h"
#include "llmz/run/config.h"
#include "llmz/text/tokenizer.h"

namespace llmz::run {

/// How far a run has come, beside its weights and moments.
struct TrainState {
  int64_t step = 0;         ///< optimizer steps done
  int64_t tokens = 0;       ///< trained on
  int64_t best_step = 0;    ///< whose checkpoint is `best`; 0 = none yet
  int64_t data_tokens = 0;  ///< in the training shards: a run is not resumed on others
  double best_validation = std::numeric_limits<double>::infinity();  ///< nats
  double last_validation = std::numeric_limits<double>::infinity();
};

/// Writes the checkpoint folder `to` (docs/checkpoints.md): weights under Hugging Face's names, optimizer state, both
/// configurations, tokenizer (may be null), state. It appears whole or not at all; Error when it cannot be written.
/// Collective: rank 0 writes, and what the file holds does not depend on the number of ranks.
void save_checkpoint(const std::filesystem::path& to, engine::Engine& engine, const RunConfig& config,
                     const text::Tokenizer* tokenizer, const TrainState& state);

/// Reads weights and optimizer state of the checkpoint at `from` into `engine`. Throws Error when the folder is not a
/// finished checkpoint or of another shape. Checksums are whoever found the checkpoint's to verify. Collective: rank 0
/// reads and the others get it from there, however many ranks wrote it.
TrainState load_checkpoint(const std::filesystem::path& from, engine::Engine& engine, dist::World& world);
TrainState load_checkpoint(const std::filesystem::path& from, engine::Engine& engine);

/// The configuration that the checkpoint at `from` was trained with; where an older llmz kept precision.compute = auto,
/// what it stood for.
RunConfig read_run_config(const std::filesystem::path& from);

/// How the random streams of the checkpoint at `from` are told apart: what goes on from it has to do as it did
/// (BuildOptions::streams).
subspace::StreamsBy read_streams(const std::filesystem::path& from);

/// Reads the weights of `from`: a checkpoint, or any folder with Hugging Face's config.json and model.safetensors.
void load_weights(const std::filesystem::path& from, model::Model& model, Memory& memory);

/// What stands in a checkpoint folder beside the tensors.
struct CheckpointHeader {
  std::filesystem::path folder;  ///< `from`, or its newest checkpoint when `from` is a run folder
  model::ModelConfig model;
  std::optional<TrainState> state;             ///< absent for a plain Hugging Face folder
  std::optional<RunConfig> run;                ///< likewise
  std::shared_ptr<text::Tokenizer> tokenizer;  ///< null when the folder has none
};

/// Opens a checkpoint folder, a run folder (its newest checkpoint; `best` and `last` work as paths), or a folder in
/// Hugging Face's format. Checksums are verified where there are some. Throws Error that says what was expected where.
CheckpointHeader open_model(const std::filesystem::path& from);

}  // namespace llmz::run
