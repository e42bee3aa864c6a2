#pragma once

#include <filesystem>
#include <optional>

#include "llmz/dist/world.h"
#include "llmz/engine/engine.h"
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

/// Element types of a run on `device`.
nn::Precision precision_of(const PrecisionConfig& config, Device device);

/// Where and in which types a finished model is evaluated or continued: `device` as train.device; `compute` as
/// precision.compute, or empty: as it was trained on a GPU, fp32 on the CPU.
struct Placement {
  Device device;
  nn::Precision precision;
  bool tf32 = false;
};
Placement place(const std::string& device, const std::string& compute, const std::optional<RunConfig>& trained);
Placement place(Device device, const std::string& compute, const std::optional<RunConfig>& trained);

/// The part of a configuration that decides memory and arithmetic.
engine::EngineOptions engine_options(const RunConfig& config);
/// Likewise, of one rank, on a device that was chosen for it.
engine::EngineOptions engine_options(const RunConfig& config, Device device, engine::RankPlace place);

/// Sets the number of CPU threads to config.train.threads, or to `all` when that is 0 and OMP_NUM_THREADS does not say
/// otherwise; `all` = 0 stands for those that this process may use. Returns the number.
int use_threads(int64_t threads, int all = 0);

}  // namespace llmz::run
