#include "llmz/train/trainer.h"

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <optional>

#include "llmz/core/system.h"
#include "llmz/data/loader.h"
#include "llmz/data/manifest.h"
#include "llmz/data/tokenizer.h"
#include "llmz/io/checkpoint.h"
#include "llmz/ops/threads.h"
#include "llmz/train/checkpoint.h"
#include "llmz/train/config_io.h"
#include "llmz/train/diagnostics.h"
#include "llmz/train/evaluate.h"
#include "llmz/train/matmul_peak.h"
#include "llmz/train/metrics.h"
#include "llmz/train/plan_report.h"
#include "llmz/train/resume.h"
#include "llmz/train/run_folder.h"
#include "llmz/train/signals.h"

namespace llmz::train {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// The shards of one split: the listed ones, or those of data.path.
data::Dataset open_split(const DataConfig& config, const std::vector<std::string>& listed, const char* key,
                         const char* split) {
  const bool from_path = listed.empty() && !config.path.empty();
  try {
    return data::Dataset::open(from_path ? std::vector<std::string>{config.path} : listed, split);
  } catch (const Error& e) {
    fail("{}: {}", from_path ? "data.path" : key, e.what());
  }
}

/// A dataset may have been prepared without a share for validation.
bool has_validation(const DataConfig& config) {
  if (!config.validation.empty()) return true;
  if (config.path.empty()) return false;
  const bool prepared = std::filesystem::exists(std::filesystem::path(config.path) / data::kManifestName);
  return !prepared || data::read_manifest(config.path).validation.tokens > 0;
}

/// The shards of a run, their order, and the tokenizer that made them, checked against the model before anything is
/// allocated or written.
struct RunData {
  data::Dataset train;
  data::Loader loader;
  std::optional<data::Dataset> validation;
  std::unique_ptr<data::Tokenizer> tokenizer;

  explicit RunData(const RunConfig& config)
      : train(open_split(config.data, config.data.train, "data.train", "train")),
        loader(train, {.seed = config.train.seed,
                       .sequence_length = config.train.sequence,
                       .micro_batch = config.train.micro_batch,
                       .global_batch = config.train.global_batch}) {
    if (has_validation(config.data)) {
      validation = open_split(config.data, config.data.validation, "data.validation", "val");
    }
    data::check_vocabulary(train, config.model.vocab_size);
    if (validation) data::check_vocabulary(*validation, config.model.vocab_size);
    if (validation) check_same_tokenizer(train, *validation);
    load_tokenizer(config.data, config.model.vocab_size);
  }

 private:
  static void check_same_tokenizer(const data::Dataset& a, const data::Dataset& b) {
    const bool known = a.tokenizer_hash() != 0 && b.tokenizer_hash() != 0;
    check(!known || a.tokenizer_hash() == b.tokenizer_hash(),
          "data.train and data.validation were made with different tokenizers: prepare both with the same one");
  }

  void load_tokenizer(const DataConfig& config, int64_t model_vocab_size) {
    namespace fs = std::filesystem;
    std::string where = config.tokenizer;
    if (where.empty() && fs::exists(fs::path(config.path) / "llmz_tokenizer.json")) where = config.path;
    if (where.empty()) return;
    tokenizer = data::load_tokenizer(where);
    check(train.tokenizer_hash() == 0 || train.tokenizer_hash() == tokenizer->hash(),
          "the tokenizer {} is not the one that made the shards of {}: set data.tokenizer to the right one, or prepare "
          "the data again",
          where, config.path.empty() ? "data.train" : config.path);
    check(tokenizer->vocab_size() <= model_vocab_size,
          "the tokenizer {} has {} tokens and the model only {}: raise model.vocab_size", where,
          tokenizer->vocab_size(), model_vocab_size);
  }
};

class Trainer {
 public:
  Trainer(const RunConfig& config, RunData& data, RunFolder& folder, bool resume, double matmul_peak)
      : config_(config), folder_(folder), data_(data), loader_(data.loader), engine_(engine_options(config)) {
    const auto newest = resume ? folder_.newest_checkpoint() : std::nullopt;
    if (newest) {
      changes_ = changes_since(read_run_config(*newest), config_);
      state_ = load_checkpoint(*newest, engine_);
      check(state_.data_tokens == data.train.tokens(),
            "the training data changed since {} was saved: {} tokens then, {} now; --resume would not see the same "
            "batches. Bring the old shards back, or start a new run in another output.path",
            newest->string(), state_.data_tokens, data.train.tokens());
      if (state_.best_step > 0) folder_.mark_best(state_.best_step);
    } else {
      engine_.initialise(config.train.seed);
      state_.data_tokens = data.train.tokens();
    }
    resumed_ = newest.has_value();
    matmul_peak_ = matmul_peak;
  }

  TrainResult run() {
    announce();
    const int64_t steps = config_.train.steps, first = state_.step;
    MetricsLog log(folder_.metrics_file(), first);
    const bool has_spectra = !engine_.model().spectra().empty();
    DiagnosticsLog diagnostics(folder_.path(), first);
    Progress progress(steps, first, config_.output.log_every);
    data::Prefetcher batches(loader_, first, 0, 1);
    const StopSignals stop;
    TrainResult result;

    while (state_.step < steps && result.signal == 0) {
      const StepMetrics metrics = step(batches);
      result.loss = metrics.loss;
      log.write(metrics);
      progress.step(metrics);
      if (has_spectra && engine_.refreshed())
        diagnostics.write_spectra(state_.step, engine_.model().spectra(), engine_.memory());
      // Over the step's last micro-batch, after its update: nothing of the run depends on it.
      if (due(config_.train.diagnostics)) diagnostics.write_errors(state_.step, engine_.diagnose(inputs_, targets_));
      // Asked once a step: a signal that comes later finds the next step, and nothing ends unsaved.
      const bool finished = state_.step == steps;
      if (!finished) result.signal = stop.received();
      bool best = false;
      if (due(config_.train.eval_every) || finished) best = validate(log, progress) && config_.output.save_best;
      if (due(config_.output.save_every) || finished || best || result.signal != 0) {
        diagnostics.sync();
        save(log, progress, best);
      }
    }
    result.step = state_.step;
    result.validation_loss = state_.last_validation;
    return result;
  }

 private:
  bool due(int64_t every) const { return every > 0 && state_.step % every == 0; }

  void announce() {
    const auto& model = engine_.model();
    fmt::print(stderr, "{}\n", to_json(config_));
    fmt::print(stderr, "{}\n", plan_table(engine_.memory_plan()));
    fmt::print(stderr,
               "model: {} with {:.2f} M parameters; data: {} tokens in {} windows, {:.2f} passes over them planned; "
               "{}, matmul peak {:.0f} GFLOP/s\n",
               config_.model.architecture, static_cast<double>(model.parameter_count()) * 1e-6, data_.train.tokens(),
               loader_.windows(), loader_.epochs(config_.train.steps), where_it_runs(), matmul_peak_ * 1e-9);
    if (!data_.validation) fmt::print(stderr, "no validation data: no validation loss, no best checkpoint\n");
    if (resumed_) fmt::print(stderr, "resumed after step {}\n", state_.step);
    for (const std::string& change : changes_) fmt::print(stderr, "changed since then: {}\n", change);
  }

  std::string where_it_runs() const {
    const Device device = engine_.options().device;
    if (device.type == DeviceType::cpu) return fmt::format("{} threads", ops::threads());
    return fmt::format("{} ({})", device_name(device), cuda_info().devices.at(static_cast<size_t>(device.index)).name);
  }

  StepMetrics step(data::Prefetcher& batches) {
    const auto start = Clock::now();
    const int micro_steps = loader_.micro_steps(1);
    const int64_t tokens = config_.train.global_batch * config_.train.sequence;
    const auto micro_tokens = static_cast<size_t>(config_.train.micro_batch * config_.train.sequence);
    inputs_.resize(micro_tokens);
    targets_.resize(micro_tokens);

    engine_.exec().flops = 0;
    engine_.begin_step(state_.step + 1);
    for (int i = 0; i < micro_steps; ++i) {
      batches.next(inputs_, targets_);
      engine_.micro_step(inputs_, targets_, 1.0f / static_cast<float>(tokens));
    }
    StepMetrics metrics;
    metrics.lr = config_.optimizer.lr * optim::schedule_factor(config_.schedule, state_.step, config_.train.steps);
    metrics.grad_norm = engine_.update(state_.step + 1, metrics.lr);
    metrics.loss = engine_.loss_sum() / static_cast<double>(tokens);
    state_.step += 1;
    state_.tokens += tokens;

    metrics.step = state_.step;
    metrics.tokens = state_.tokens;
    metrics.seconds = seconds_since(start);
    metrics.tokens_per_second = static_cast<double>(tokens) / metrics.seconds;
    metrics.matmul_fraction = engine_.exec().flops / metrics.seconds / matmul_peak_;
    metrics.resident_bytes = static_cast<size_t>(process_memory().resident);
    return metrics;
  }

  /// Whether the validation loss is the best so far.
  bool validate(MetricsLog& log, Progress& progress) {
    if (!data_.validation) return false;
    const Evaluation e = evaluate(engine_, *data_.validation, 0, config_.train.eval_batches);
    state_.last_validation = e.loss;
    log.write_validation(state_.step, e.loss);
    progress.note(fmt::format("step {}: validation loss {:.4f}, perplexity {:.2f} ({} tokens)", state_.step, e.loss,
                              e.perplexity, e.tokens));
    if (!(e.loss < state_.best_validation)) return false;  // not for a NaN either
    state_.best_validation = e.loss;
    return true;
  }

  void save(MetricsLog& log, Progress& progress, bool best) {
    if (best) state_.best_step = state_.step;
    const auto to = folder_.checkpoint(state_.step);
    log.sync();  // a checkpoint never knows of steps that the log has lost
    save_checkpoint(to, engine_, config_, data_.tokenizer.get(), state_);
    folder_.mark_last(state_.step);
    if (best) folder_.mark_best(state_.step);
    folder_.prune(config_.output.keep_every);
    progress.note(fmt::format("step {}: saved {}", state_.step, to.string()));
  }

  const RunConfig config_;
  RunFolder& folder_;
  const RunData& data_;
  const data::Loader& loader_;
  Engine engine_;
  TrainState state_;
  bool resumed_ = false;
  double matmul_peak_ = 0;
  std::vector<std::string> changes_;  ///< configuration keys that differ from the resumed checkpoint's
  std::vector<int32_t> inputs_, targets_;
};

void check_memory(const EngineOptions& options) {
  if (options.device.type != DeviceType::cpu) return;  // a GPU says itself what it lacks
  const MemoryPlan plan = Engine::plan(options);
  const MemoryInfo memory = memory_info();
  check(static_cast<int64_t>(plan.arena_bytes) <= memory.available || memory.available == 0,
        "this run needs {:.2f} GB and {:.2f} GB are free: lower train.micro_batch, set \"preset\" to \"lean\", or "
        "choose a "
        "smaller model (`llmz plan --compare` tells what each method takes)",
        static_cast<double>(plan.arena_bytes) * 1e-9, static_cast<double>(memory.available) * 1e-9);
}

}  // namespace

nn::Precision precision_of(const PrecisionConfig& config, Device device) {
  const bool on_gpu = device.type == DeviceType::cuda;
  const bool half = config.compute == "bf16" || (config.compute == "auto" && on_gpu);
  const DType type = half ? DType::bf16 : DType::f32;
  return {.weight = type, .activation = type, .gradient = config.gradients == "bf16" ? DType::bf16 : DType::f32};
}

Placement place(const std::string& device_name, const std::string& compute, const std::optional<RunConfig>& trained) {
  const Device device = device_from_name(device_name);
  PrecisionConfig precision;
  precision.compute = !compute.empty() ? compute : device.type == DeviceType::cpu ? "fp32" : "auto";
  if (compute.empty() && device.type == DeviceType::cuda && trained) precision.compute = trained->precision.compute;
  return {device, precision_of(precision, device), precision.compute == "tf32"};
}

EngineOptions engine_options(const RunConfig& config) {
  const Device device = device_from_name(config.train.device);
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
          .tf32 = config.precision.compute == "tf32"};
}

int use_threads(int64_t threads) {
  if (threads > 0) {
    ops::set_threads(static_cast<int>(threads));
  } else if (std::getenv("OMP_NUM_THREADS") == nullptr) {
    ops::set_threads(cpu_info().threads());
  }
  return ops::threads();
}

TrainResult run_training(const TrainRequest& request) {
  validate_for_training(request.config);
  // All that can be wrong with the data or the machine is found before the folder is touched.
  RunData data(request.config);
  use_threads(request.config.train.threads);
  check_memory(engine_options(request.config));
  RunFolder folder(request.config.output.path, request.resume, request.overwrite);
  // Before the engine takes its memory, of which a GPU may have little more.
  const EngineOptions options = engine_options(request.config);
  const double peak = measure_matmul_peak(options.device, options.build.precision.activation, options.tf32);
  Trainer trainer(request.config, data, folder, request.resume, peak);
  folder.write_config(to_json(request.config));
  return trainer.run();
}

}  // namespace llmz::train
