#include <limits>

#include "llmz/core/error.h"
#include "llmz/core/system.h"
#include "llmz/run/config_io.h"

namespace llmz::run {
namespace {

void check_device(const RunConfig& c) {
  try {
    device_wish(c.train.device);
  } catch (const Error& e) {
    fail("\"train.device\" = \"{}\": {}", c.train.device, e.what());
  }
}

void check_batches(const RunConfig& c) {
  const TrainConfig& t = c.train;
  check(t.steps >= 1 && t.sequence >= 1 && t.micro_batch >= 1,
        "train.steps = {}, train.sequence = {} and train.micro_batch = {} must be at least 1", t.steps, t.sequence,
        t.micro_batch);
  check(t.sequence <= c.model.context, "train.sequence = {} is longer than model.context = {}", t.sequence,
        c.model.context);
  check(t.global_batch >= 1 && t.global_batch % t.micro_batch == 0,
        "train.global_batch = {} must be a multiple of train.micro_batch = {}", t.global_batch, t.micro_batch);
  check(t.micro_batch <= std::numeric_limits<int32_t>::max() / t.sequence,
        "train.micro_batch = {} times train.sequence = {} is more tokens than one pass can count; make either smaller",
        t.micro_batch, t.sequence);
  const double tokens =
      static_cast<double>(t.steps) * static_cast<double>(t.global_batch) * static_cast<double>(t.sequence);
  check(
      tokens < 0x1p63,
      "train.steps = {} times train.global_batch = {} times train.sequence = {} is more tokens than 64 bits can count",
      t.steps, t.global_batch, t.sequence);
}

void check_schedule(const RunConfig& c) {
  const int64_t warmup = optim::warmup_steps(c.schedule, c.train.steps);
  check(warmup <= c.train.steps,
        "schedule.warmup = {} steps is longer than the run, train.steps = {}; a value below 1 is a fraction of the run",
        warmup, c.train.steps);
}

void check_output(const OutputConfig& output) {
  if (output.keep_every == 0) return;
  check(output.save_every > 0 && output.keep_every % output.save_every == 0,
        "output.keep_every = {} must be a multiple of output.save_every = {}", output.keep_every, output.save_every);
}

}  // namespace

void validate(const RunConfig& config) {
  model::validate(config.model);
  nn::validate(config.activations, config.weight_gradient, config.model.hidden,
               config.model.heads * config.model.head_dim(), config.model.kv_heads_or_heads() * config.model.head_dim(),
               config.model.intermediate);
  optim::validate(config.optimizer);
  check_device(config);
  check_batches(config);
  check_schedule(config);
  check_output(config.output);
  check(config.data.path.empty() || config.data.train.empty(),
        "data.path = \"{}\" and data.train are both set; leave one of them out", config.data.path);
}

void validate_for_training(const RunConfig& config) {
  validate(config);
  check(!config.data.path.empty() || !config.data.train.empty(),
        "there is nothing to train on: set data.path to a folder made by `llmz data prepare`, or data.train to a list "
        "of shard files");
  check(!config.output.path.empty(), "output.path is empty: name the folder for the run's files");
}

}  // namespace llmz::run
