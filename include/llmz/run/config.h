#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "llmz/core/dtype.h"
#include "llmz/engine/ranks.h"
#include "llmz/model/config.h"
#include "llmz/nn/config.h"
#include "llmz/optim/config.h"

namespace llmz::run {

/// JSON `data`.
struct DataConfig {
  std::string path;                     ///< folder made by `llmz data prepare`
  std::vector<std::string> train;       ///< instead of `path`: shard files or globs
  std::vector<std::string> validation;  ///< likewise
  std::string tokenizer;                ///< folder or file; empty = the tokenizer in `path`, if any
};

/// Weights and activations in products: JSON `precision.compute`.
enum class Compute : uint8_t {
  automatic,  ///< bf16 where the device multiplies it, else fp32
  fp32,
  tf32,  ///< fp32, rounded in a GPU's products
  bf16
};
const config::Names<Compute>& computes();

/// Types of moments and gradients by their names in a configuration: fp32, bf16.
const config::Names<DType>& stored_types();

/// JSON `precision`. Written as a text it is the name of a set of these (precision_sets).
struct PrecisionConfig {
  Compute compute = Compute::automatic;
  optim::Bf16Weights weights = optim::Bf16Weights::master;
  DType moments = DType::f32;    ///< f32 or bf16
  DType gradients = DType::f32;  ///< f32 or bf16
};

/// JSON `train`.
struct TrainConfig {
  std::string device = "auto";  ///< auto | cpu | cuda | cuda:k
  uint64_t seed = 1;
  int64_t steps = 1000;
  int64_t sequence = 256;     ///< tokens in a window
  int64_t micro_batch = 8;    ///< windows in one forward/backward
  int64_t global_batch = 8;   ///< windows in one optimizer step; a multiple of micro_batch
  int64_t loss_chunk = 1024;  ///< tokens whose logits exist at once
  int64_t threads = 0;        ///< CPU threads; 0 = all that this process may use
  int64_t eval_every = 100;   ///< steps between validations; 0 = only at the end
  int64_t diagnostics = 0;    ///< steps between measurements of the codes' errors; 0 = none
  int64_t eval_batches = 20;  ///< micro-batches of a validation during training; 0 = the whole split
};

/// JSON `output`.
struct OutputConfig {
  std::string path = "out/run";  ///< run folder
  int64_t log_every = 10;        ///< steps between plain progress lines
  int64_t save_every = 500;      ///< steps between checkpoints; 0 = only at the end
  int64_t keep_every = 0;        ///< checkpoints at multiples of this are never pruned; 0 = none
  bool save_best = true;         ///< keep the checkpoint of the best validation loss
};

/// Everything a run is made from: one JSON file.
struct RunConfig {
  model::ModelConfig model;
  DataConfig data;
  nn::ActivationsConfig activations;
  codec::GradientConfig weight_gradient;
  PrecisionConfig precision;
  optim::OptimizerConfig optimizer;
  optim::ScheduleConfig schedule;
  TrainConfig train;
  engine::DistributedConfig distributed;
  OutputConfig output;
};

}  // namespace llmz::run
