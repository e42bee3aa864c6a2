#include "llmz/run/trainer.h"

#include <chrono>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "llmz/core/system.h"
#include "llmz/data/loader.h"
#include "llmz/engine/matmul_peak.h"
#include "llmz/engine/plan_report.h"
#include "llmz/ops/threads.h"
#include "llmz/run/checkpoint.h"
#include "llmz/run/config_io.h"
#include "llmz/run/evaluate.h"
#include "llmz/run/placement.h"
#include "src/run/diagnostics.h"
#include "src/run/metrics.h"
#include "src/run/resume.h"
#include "src/run/run_data.h"
#include "src/run/run_folder.h"
#include "src/run/signals.h"

namespace llmz::run {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// What a run goes on from.
struct GoesOn {
  std::string checkpoint;  ///< empty: it starts
  subspace::StreamsBy streams = subspace::StreamsBy::name;
  Compute compute = Compute::automatic;  ///< its precision.compute
  std::vector<std::string> notes = {};   ///< lines for the screen
};

/// `folder` is rank 0's; null on the others.
GoesOn newest_of(const RunFolder* folder, const RunConfig& config, dist::World& world) {
  GoesOn from;
  nlohmann::json found = {{"checkpoint", ""}, {"by_name", true}, {"compute", computes().name(from.compute)}};
  world.together([&] {
    if (folder == nullptr) return;
    const auto newest = folder->newest_checkpoint();
    if (!newest) return;
    const RunConfig saved = read_run_config(*newest);
    RunConfig now = config;
    if (now.precision.compute == Compute::automatic) now.precision.compute = saved.precision.compute;
    for (const std::string& change : changes_since(saved, now)) from.notes.push_back("changed since then: " + change);
    found = {{"checkpoint", newest->string()},
             {"by_name", read_streams(*newest) == subspace::StreamsBy::name},
             {"compute", computes().name(saved.precision.compute)}};
  });
  found = nlohmann::json::parse(world.broadcast(found.dump()));
  from.checkpoint = found["checkpoint"].get<std::string>();
  from.compute = computes().value(found["compute"].get<std::string>(), "precision.compute");
  if (!found["by_name"].get<bool>()) from.streams = subspace::StreamsBy::order;
  return from;
}

class Trainer {
 public:
  /// `folder` is rank 0's; null on the others.
  Trainer(const TrainRequest& request, const engine::EngineOptions& options, RunData& data, RunFolder* folder,
          GoesOn from, double matmul_peak, dist::World& world)
      : config_(request.config),
        verbose_(request.verbose),
        folder_(folder),
        data_(data),
        loader_(data.loader),
        world_(world),
        engine_(options, [&](Memory& memory) { return world.make_communicator(memory); }),
        from_(std::move(from)),
        matmul_peak_(matmul_peak) {
    const std::string& newest = from_.checkpoint;
    if (newest.empty()) {
      engine_.initialise(config_.train.seed);
      state_.data_tokens = data.train.tokens();
      return;
    }
    state_ = load_checkpoint(newest, engine_, world);
    check(state_.data_tokens == data.train.tokens(),
          "the training data changed since {} was saved: {} tokens then, {} now; --resume would not see the same "
          "batches. Bring the old shards back, or start a new run in another output.path",
          newest, state_.data_tokens, data.train.tokens());
    if (folder_ != nullptr && state_.best_step > 0) folder_->mark_best(state_.best_step);
  }

  TrainResult run(const StopSignals& stop) {
    const int64_t steps = config_.train.steps, first = state_.step;
    if (folder_ != nullptr) {
      announce();
      records_.emplace(*folder_, first, steps, config_.output.log_every);
    }
    data::Prefetcher batches(loader_, first, world_.rank(), world_.size());
    TrainResult result;
    result.signal = static_cast<int>(world_.max(stop.received()));
    while (state_.step < steps && result.signal == 0) {
      const StepMetrics metrics = step(batches);
      result.loss = metrics.loss;
      if (records_) record(metrics);
      // Asked once a step: a signal that comes later finds the next step, and nothing ends unsaved. One rank's stops
      // all.
      const bool finished = state_.step == steps;
      if (!finished) result.signal = static_cast<int>(world_.max(stop.received()));
      bool best = false;
      if (due(config_.train.eval_every) || finished) best = validate() && config_.output.save_best;
      if (due(config_.output.save_every) || finished || best || result.signal != 0) save(best);
    }
    world_.barrier();  // nobody ends before rank 0 has saved: launchers end the others when one ends
    result.step = state_.step;
    result.validation_loss = state_.last_validation;
    return result;
  }

 private:
  /// What rank 0 writes and shows while it runs.
  struct Records {
    MetricsLog log;
    DiagnosticsLog diagnostics;
    Progress progress;

    Records(const RunFolder& folder, int64_t first, int64_t steps, int64_t every)
        : log(folder.metrics_file(), first), diagnostics(folder.path(), first), progress(steps, first, every) {}
  };

  void record(const StepMetrics& metrics) {
    records_->log.write(metrics);
    records_->progress.step(metrics);
    DiagnosticsLog& diagnostics = records_->diagnostics;
    if (engine_.refreshed()) diagnostics.write_spectra(state_.step, engine_.model().spectra(), engine_.memory());
    // Over the step's last micro-batch, after its update: nothing of the run depends on it.
    if (due(config_.train.diagnostics)) diagnostics.write_errors(state_.step, engine_.diagnose(inputs_, targets_));
  }

  bool due(int64_t every) const { return every > 0 && state_.step % every == 0; }

  void announce_config() const {
    if (verbose_) return fmt::print(stderr, "{}\n", to_json(config_));
    fmt::print(stderr,
               "configuration, where it differs from the defaults (all of it: {}/config.json, or --verbose):\n{}\n",
               config_.output.path, changes_json(config_));
  }

  void announce() {
    const auto& model = engine_.model();
    announce_config();
    fmt::print(stderr, "{}\n", engine::plan_table(engine_.memory_plan()));
    fmt::print(stderr,
               "model: {} with {:.2f} M parameters; data: {} tokens in {} windows, {:.2f} passes over them planned; "
               "{}, matmul peak {:.0f} GFLOP/s in {}\n",
               config_.model.architecture, static_cast<double>(model.parameter_count()) * 1e-6, data_.train.tokens(),
               loader_.windows(), loader_.epochs(config_.train.steps), where_it_runs(), matmul_peak_ * 1e-9,
               arithmetic(engine_.options()));
    if (!data_.validation) fmt::print(stderr, "no validation data: no validation loss, no best checkpoint\n");
    if (!from_.checkpoint.empty()) fmt::print(stderr, "resumed after step {}\n", state_.step);
    for (const std::string& note : from_.notes) fmt::print(stderr, "{}\n", note);
  }

  std::string where_it_runs() const {
    const Device device = engine_.options().device;
    const std::string ranks =
        world_.size() == 1 ? "" : fmt::format("{} ranks through {}, ", world_.size(), engine_.ranks().name());
    if (device.type == DeviceType::cpu) return fmt::format("{}{} threads", ranks, ops::threads());
    return fmt::format("{}{} ({})", ranks, device_name(device),
                       cuda_info().devices.at(static_cast<size_t>(device.index)).name);
  }

  StepMetrics step(data::Prefetcher& batches) {
    const auto start = Clock::now();
    const int micro_steps = loader_.micro_steps(world_.size());
    const Traffic traffic_before = engine_.ranks().traffic();
    const double waited_before = engine_.ranks().seconds_waited();
    const int64_t tokens = config_.train.global_batch * config_.train.sequence;
    const auto micro_tokens = static_cast<size_t>(config_.train.micro_batch * config_.train.sequence);
    inputs_.resize(micro_tokens);
    targets_.resize(micro_tokens);

    engine_.exec().flops = 0;
    engine_.begin_step(state_.step + 1);
    for (int i = 0; i < micro_steps; ++i) {
      batches.next(inputs_, targets_);
      engine_.micro_step(inputs_, targets_, 1.0f / static_cast<float>(tokens), i + 1 == micro_steps);
    }
    StepMetrics metrics;
    metrics.lr = config_.optimizer.lr * optim::schedule_factor(config_.schedule, state_.step, config_.train.steps);
    try {
      metrics.grad_norm = engine_.update(state_.step + 1, metrics.lr);
    } catch (const engine::NotFinite& e) {
      throw dist::SharedError(e.what());
    }
    metrics.loss = engine_.loss_sum() / static_cast<double>(tokens);
    state_.step += 1;
    state_.tokens += tokens;

    metrics.step = state_.step;
    metrics.tokens = state_.tokens;
    metrics.seconds = seconds_since(start);
    metrics.tokens_per_second = static_cast<double>(tokens) / metrics.seconds;
    metrics.matmul_fraction = engine_.exec().flops / metrics.seconds / matmul_peak_;
    metrics.resident_bytes = static_cast<size_t>(process_memory().resident);
    metrics.ranks = world_.size();
    metrics.sent_bytes = (engine_.ranks().traffic() - traffic_before).sent(world_.size());
    metrics.seconds_waited = engine_.ranks().seconds_waited() - waited_before;
    return metrics;
  }

  /// Whether the validation loss is the best so far.
  bool validate() {
    if (!data_.validation) return false;
    const Evaluation e = evaluate(engine_, *data_.validation, 0, config_.train.eval_batches, &world_);
    state_.last_validation = e.loss;
    if (records_) {
      records_->log.write_validation(state_.step, e.loss);
      records_->progress.note(fmt::format("step {}: validation loss {:.4f}, perplexity {:.2f} ({} tokens)", state_.step,
                                          e.loss, e.perplexity, e.tokens));
    }
    if (!(e.loss < state_.best_validation)) return false;  // not for a NaN either
    state_.best_validation = e.loss;
    return true;
  }

  /// Every rank updates its own copy of what is not split: on processors of different kinds they may part, bit by bit,
  /// and gradients of different models would be averaged.
  void check_weights_agree() {
    if (world_.size() == 1) return;
    const auto digest = static_cast<int64_t>(engine_.weights_digest() >> 1);
    if (world_.max(digest) == -world_.max(-digest)) return;
    throw dist::SharedError(
        fmt::format("after step {} the ranks no longer hold the same weights, so nothing was saved: their processors "
                    "or libraries round differently, or memory is faulty. Use machines of one kind, or "
                    "distributed.zero_stage = 1, with which every matrix comes from one rank; --resume goes on from "
                    "the last checkpoint",
                    state_.step));
  }

  void save(bool best) {
    check_weights_agree();
    if (best) state_.best_step = state_.step;
    if (folder_ == nullptr) return save_checkpoint("", engine_, config_, nullptr, state_);
    const auto to = folder_->checkpoint(state_.step);
    records_->log.sync();  // a checkpoint never knows of steps that the logs have lost
    records_->diagnostics.sync();
    save_checkpoint(to, engine_, config_, data_.tokenizer.get(), state_);
    folder_->mark_last(state_.step);
    if (best) folder_->mark_best(state_.step);
    folder_->prune(config_.output.keep_every);
    records_->progress.note(fmt::format("step {}: saved {}", state_.step, to.string()));
  }

  const RunConfig config_;
  const bool verbose_;
  RunFolder* const folder_;
  const RunData& data_;
  const data::Loader& loader_;
  dist::World& world_;
  engine::Engine engine_;
  const GoesOn from_;
  std::optional<Records> records_;  ///< of rank 0
  TrainState state_;
  double matmul_peak_ = 0;
  std::vector<int32_t> inputs_, targets_;
};

/// `ranks` of a host share its memory.
void check_memory(const engine::EngineOptions& options, int ranks) {
  if (options.device.type != DeviceType::cpu) return;  // a GPU says itself what it lacks
  const int64_t needed = static_cast<int64_t>(engine::Engine::plan(options).arena_bytes) * ranks;
  const MemoryInfo memory = memory_info();
  check(needed <= memory.available || memory.available == 0,
        "this run needs {:.2f} GB and {:.2f} GB are free: lower train.micro_batch, set \"preset\" to \"lean\", or "
        "choose a smaller model (`llmz plan --compare` tells what each method takes)",
        static_cast<double>(needed) * 1e-9, static_cast<double>(memory.available) * 1e-9);
}

}  // namespace

TrainResult run_training(const TrainRequest& request) { return run_training(request, *dist::make_single_world()); }

namespace {

/// precision.compute = auto is answered by each rank's own processor.
void check_same_type(dist::World& world, DType type) {
  const std::vector<std::string> all = world.all_gather(std::string(dtype_name(type)));
  for (size_t rank = 1; rank < all.size(); ++rank) {
    if (all[rank] == all[0]) continue;
    throw dist::SharedError(fmt::format(
        "rank {} ({}) would compute in {}, rank 0 ({}) in {}: set precision.compute to \"fp32\" or \"bf16\"", rank,
        world.hosts()[rank], all[rank], world.hosts()[0], all[0]));
  }
}

/// precision.compute = auto is answered once for a run, when it begins: another processor that goes on with it does so
/// in its type, and what the run keeps of its configuration means the same anywhere.
void settle_compute(Compute& compute, GoesOn& from, Device device) {
  if (compute != Compute::automatic) return;
  const Compute here = settled_compute(compute, device);
  compute = from.checkpoint.empty() ? here : from.compute;
  if (compute == here) return;
  from.notes.push_back(
      fmt::format("precision.compute = auto stays {}, in which this run began; a new one here would take {}",
                  computes().name(compute), computes().name(here)));
}

/// What a run holds. Other ranks may be writing to its memory until they are ended.
struct Run {
  const StopSignals stop;  // from here on: one that comes while checksums are made is not lost
  std::optional<RunData> data;
  std::optional<RunFolder> folder;
  std::optional<Trainer> trainer;
};

TrainResult train_together(TrainRequest request, dist::World& world, Run& run) {
  RunConfig& config = request.config;
  std::optional<RunData>& data = run.data;
  std::optional<RunFolder>& folder = run.folder;
  // All that can be wrong with the data or the machine is found before a folder is made.
  world.together([&] {
    validate_for_training(config);
    data.emplace(config);
    data->loader.micro_steps(world.size());
  });
  world.check_same("the configuration", to_json(config));
  world.check_same("the training data", fmt::format("{} {}", data->train.tokens(), data->train.tokenizer_hash()));
  const auto& validation = data->validation;
  world.check_same("the validation data",
                   validation ? fmt::format("{} {}", validation->tokens(), validation->tokenizer_hash()) : "none");
  const Device device = dist::assign_device(world, config.train.device);
  use_threads(config.train.threads, dist::fair_threads(world));
  const auto open_folder = [&] { folder.emplace(config.output.path, request.resume, request.overwrite); };
  world.together([&] {
    if (world.leads() && request.resume && std::filesystem::exists(config.output.path)) open_folder();
  });
  GoesOn from;
  if (request.resume) from = newest_of(folder ? &*folder : nullptr, config, world);
  settle_compute(config.precision.compute, from, device);
  engine::EngineOptions options = engine_options(config, device, {world.rank(), world.size()});
  options.build.streams = from.streams;
  check_same_type(world, options.build.precision.activation);
  world.together([&] {
    check_memory(options, world.local_size());
    if (world.leads() && !folder) open_folder();
  });
  // Before the engine takes its memory, of which a GPU may have little more.
  const double peak = engine::measure_matmul_peak(options.device, options.build.precision.activation, options.tf32);
  run.trainer.emplace(request, options, *data, folder ? &*folder : nullptr, std::move(from), peak, world);
  if (folder) folder->write_config(to_json(config));
  return run.trainer->run(run.stop);
}

}  // namespace

TrainResult run_training(const TrainRequest& request, dist::World& world) {
  Run run;
  return world.guard([&] { return train_together(request, world, run); });
}

}  // namespace llmz::run
