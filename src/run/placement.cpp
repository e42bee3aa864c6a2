#include "llmz/run/placement.h"

#include "llmz/core/system.h"
#include "llmz/ops/matmul.h"
#include "llmz/ops/threads.h"

namespace llmz::run {

Compute settled_compute(Compute compute, Device device) {
  if (compute != Compute::automatic) return compute;
  return ops::multiplies_bf16(device.type) ? Compute::bf16 : Compute::fp32;
}

nn::Precision precision_of(const PrecisionConfig& config, Device device) {
  const DType type = settled_compute(config.compute, device) == Compute::bf16 ? DType::bf16 : DType::f32;
  return {.weight = type, .activation = type, .gradient = config.gradients};
}

Placement place(const std::string& device_name, std::optional<Compute> compute,
                const std::optional<RunConfig>& trained) {
  return place(device_from_name(device_name), compute, trained);
}

Placement place(Device device, std::optional<Compute> compute, const std::optional<RunConfig>& trained) {
  PrecisionConfig precision;
  if (compute) {
    precision.compute = *compute;
  } else if (device.type == DeviceType::cpu) {
    precision.compute = Compute::fp32;
  } else if (trained) {
    precision.compute = trained->precision.compute;
  }
  return {device, precision_of(precision, device), precision.compute == Compute::tf32};
}

engine::EngineOptions engine_options(const RunConfig& config) {
  return engine_options(config, device_from_name(config.train.device), {});
}

engine::EngineOptions engine_options(const RunConfig& config, Device device, engine::RankPlace place) {
  return {.model = config.model,
          .build = {.activations = config.activations,
                    .weight_gradient = config.weight_gradient,
                    .precision = precision_of(config.precision, device),
                    .loss_chunk = config.train.loss_chunk,
                    .probes = config.train.diagnostics > 0,
                    .seed = config.train.seed},
          .optimizer = config.optimizer,
          .state = {.bf16_moments = config.precision.moments == DType::bf16,
                    .weights = config.precision.weights,
                    .seed = config.train.seed},
          .micro_batch = config.train.micro_batch,
          .sequence = config.train.sequence,
          .training = true,
          .device = device,
          .tf32 = config.precision.compute == Compute::tf32,
          .distributed = config.distributed,
          .place = place};
}

std::string_view arithmetic(const engine::EngineOptions& options) {
  return options.tf32 ? "tf32" : dtype_name(options.build.precision.activation);
}

int use_threads(int64_t threads, int all) {
  if (threads > 0) {
    ops::set_threads(static_cast<int>(threads));
  } else if (environment("OMP_NUM_THREADS") == nullptr) {
    ops::set_threads(all > 0 ? all : cpu_info().threads());
  }
  return ops::threads();
}

}  // namespace llmz::run
