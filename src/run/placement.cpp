#include "llmz/run/placement.h"

#include "llmz/core/system.h"
#include "llmz/ops/matmul.h"
#include "llmz/ops/threads.h"

namespace llmz::run {

std::string settled_compute(const std::string& compute, Device device) {
  if (compute != "auto") return compute;
  return ops::multiplies_bf16(device.type) ? "bf16" : "fp32";
}

nn::Precision precision_of(const PrecisionConfig& config, Device device) {
  const DType type = settled_compute(config.compute, device) == "bf16" ? DType::bf16 : DType::f32;
  return {.weight = type, .activation = type, .gradient = config.gradients == "bf16" ? DType::bf16 : DType::f32};
}

Placement place(const std::string& device_name, const std::string& compute, const std::optional<RunConfig>& trained) {
  return place(device_from_name(device_name), compute, trained);
}

Placement place(Device device, const std::string& compute, const std::optional<RunConfig>& trained) {
  PrecisionConfig precision;
  precision.compute = !compute.empty() ? compute : device.type == DeviceType::cpu ? "fp32" : "auto";
  if (compute.empty() && device.type == DeviceType::cuda && trained) precision.compute = trained->precision.compute;
  return {device, precision_of(precision, device), precision.compute == "tf32"};
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
          .state = {.bf16_moments = config.precision.moments == "bf16",
                    .weights = config.precision.weights,
                    .seed = config.train.seed},
          .micro_batch = config.train.micro_batch,
          .sequence = config.train.sequence,
          .training = true,
          .device = device,
          .tf32 = config.precision.compute == "tf32",
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
