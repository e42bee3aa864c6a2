#pragma once

#include <filesystem>
#include <optional>

#include "llmz/dist/world.h"
#include "llmz/run/config.h"

namespace llmz::run {

struct TrainRequest {
  RunConfig config;
  bool resume = false;     ///< go on from the newest checkpoint of output.path; start when there is none
  bool overwrite = false;  ///< remove an earlier run's checkpoints and metrics in output.path
  bool verbose = false;    ///< print the whole configuration first, not only what differs from the defaults
};

struct TrainResult {
  int64_t step = 0;            ///< steps done, of config.train.steps
  std::optional<double> loss;  ///< of the last step; none when there was nothing left to do
  double validation_loss = 0;  ///< the last one; infinity when there is no validation data
  int signal = 0;              ///< the signal that stopped the run; 0 when it ran to its end
};

/// Runs the training that `request` describes: data, model, steps, validation, checkpoints, metrics in output.path
/// (docs/checkpoints.md has the folder). Stops after the current step on SIGINT, SIGTERM or SIGUSR1 and saves.
/// Throws Error for whatever the user can mend; what was saved before stays.
TrainResult run_training(const TrainRequest& request);
/// Collective: one run of all ranks of `world`. Rank 0 alone touches output.path and speaks. Throws dist::SharedError
/// on every rank for what all can know; where one rank fails alone, it says so and ends the others.
TrainResult run_training(const TrainRequest& request, dist::World& world);

}  // namespace llmz::run
