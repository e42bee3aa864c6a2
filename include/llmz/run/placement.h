#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "llmz/engine/engine.h"
#include "llmz/run/config.h"

/// Where a run computes, and in which types.
namespace llmz::run {

/// What precision.compute = `compute` stands for on `device`: itself, or for auto fp32 or bf16.
Compute settled_compute(Compute compute, Device device);

/// Element types of a run on `device`.
nn::Precision precision_of(const PrecisionConfig& config, Device device);

/// Where and in which types a finished model is evaluated or continued: `device` as train.device; `compute` as
/// precision.compute, or none: as it was trained on a GPU, fp32 on the CPU.
struct Placement {
  Device device;
  nn::Precision precision;
  bool tf32 = false;
};
Placement place(const std::string& device, std::optional<Compute> compute, const std::optional<RunConfig>& trained);
Placement place(Device device, std::optional<Compute> compute, const std::optional<RunConfig>& trained);

/// The part of a configuration that decides memory and arithmetic.
engine::EngineOptions engine_options(const RunConfig& config);
/// Likewise, of one rank, on a device that was chosen for it.
engine::EngineOptions engine_options(const RunConfig& config, Device device, engine::RankPlace place);

/// In which type its products are computed: "f32", "tf32" or "bf16".
std::string_view arithmetic(const engine::EngineOptions& options);

/// Sets the number of CPU threads to config.train.threads, or to `all` when that is 0 and OMP_NUM_THREADS does not say
/// otherwise; `all` = 0 stands for those that this process may use. Returns the number.
int use_threads(int64_t threads, int all = 0);

}  // namespace llmz::run
