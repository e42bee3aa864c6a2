#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "llmz/core/planned.h"
#include "llmz/engine/ranks.h"
#include "llmz/model/model.h"
#include "llmz/optim/optimizer.h"

namespace llmz::engine {

/// What one process needs to know to run steps: the model, how it is built, the batch of one forward/backward.
struct EngineOptions {
  model::ModelConfig model = {};
  model::BuildOptions build = {};
  optim::OptimizerConfig optimizer = {};
  optim::StatePrecision state = {};
  optim::RuleTable rules = optim::rule_table();  ///< that the optimizer may choose from
  int64_t micro_batch = 1, sequence = 1;
  bool training = true;  ///< false: evaluation only, no gradients and no optimizer
  Device device = {};
  bool tf32 = false;  ///< f32 products on a GPU may round their factors to TF32
  DistributedConfig distributed = {};
  RankPlace place = {};
};

/// Makes the communicator of an engine for its memory.
using MakeCommunicator = std::function<std::unique_ptr<Communicator>(Memory&)>;

/// What one rank sends and receives, in bytes of the tensors that take part.
struct StepTraffic {
  Traffic step;                         ///< of every optimizer step, however many micro-steps it has
  Traffic refresh;                      ///< of a step in which every refresh falls due, beside that
  double dense_linear = 0, linear = 0;  ///< of `step`: gradients of the blocks' matrices, if dense and as they are
};

/// One measured error.
struct CodeError {
  std::string name;  ///< of the tensor or weight
  std::string what;  ///< "code" | "gradient"
  double relative_error = 0;
};

/// A step went wrong, on all ranks: each throws this with the same text.
class NotFinite : public Error {
 public:
  using Error::Error;
};

/// A model, its optimizer and their memory on one device: one rank of a run. With several ranks `micro_step`, `update`,
/// `loss_sum`, `initialise` and `WholeState` are collective. Every buffer is planned before the first step: the same
/// code that runs a step is run once on nothing to learn what it needs.
class Engine {
 public:
  /// What `Engine(options)` would allocate; allocates nothing.
  static MemoryPlan plan(const EngineOptions& options);
  /// Which of `options.place.size` ranks takes most memory. Rank 0 makes as many bases at a refresh and has a matrix as
  /// large as any, but where whole matrices are shared out, another may keep more states.
  static int fullest_rank(EngineOptions options);
  /// Floating-point operations of one micro-step as the ops count them (training: forward and backward).
  static double flops_per_micro_step(const EngineOptions& options);

  /// What a step of `options.place.size` ranks moves, without moving it.
  static StepTraffic traffic_per_step(const EngineOptions& options);

  /// With several ranks, `make_communicator` is needed.
  explicit Engine(const EngineOptions& options, const MakeCommunicator& make_communicator = {});
  ~Engine();

  const EngineOptions& options() const { return options_; }
  const MemoryPlan& memory_plan() const { return body_.memory().plan(); }
  model::Model& model();
  optim::Optimizer& optimizer();
  Exec& exec() { return body_.exec(); }
  Memory& memory() { return body_.memory(); }
  Communicator& ranks() const { return *ranks_; }

  void initialise(uint64_t seed);
  /// Weights become rank 0's, on every rank.
  void share_weights();

  /// The start of optimizer step `step`, which counts from 1: gradients are zero, projectors follow the step; where a
  /// refresh is due, the first micro-step begins with it.
  void begin_step(int64_t step);
  /// Whether passes may be recorded on the GPU and played again: not on a CPU, nor where codes draw anew in each.
  bool replays_passes() const { return graphs_; }
  /// Whether the step in progress began with a refresh of stored projectors.
  bool refreshed() const { return refreshed_; }

  /// Forward and backward of one micro-batch; tokens, targets [micro_batch·sequence]. Gradients of grad_scale·Σ loss
  /// are added up. Does not wait for a GPU. `last`: of this step; the gradients are then summed over ranks, those of
  /// late layers while early ones are still at work.
  void micro_step(std::span<const int32_t> tokens, std::span<const int32_t> targets, float grad_scale,
                  bool last = true);
  /// Σ loss over the targets of all micro-steps of all ranks since `begin_step`, in nats.
  double loss_sum();
  /// Measures the global gradient norm, clips, updates the weights. `step` counts from 1. Returns the norm before
  /// clipping: the one number that a step waits for, since it keeps a NaN out of the weights. Throws NotFinite naming
  /// the first bad tensor, and updates nothing, when the norm is not finite.
  double update(int64_t step, double lr);

  /// Relative errors ‖approximate − exact‖/‖exact‖ of every lossy code and of the weight gradients made from it, over
  /// one forward and backward pass that changes nothing; gradients are zero afterwards. Needs build.probes.
  std::vector<CodeError> diagnose(std::span<const int32_t> tokens, std::span<const int32_t> targets);

  /// Per-token losses [micro_batch·sequence] in nats, 0 where the target is −1. Valid until the next call. Not for f64.
  std::span<const float> evaluate(std::span<const int32_t> tokens, std::span<const int32_t> targets);

  /// Name of the first weight or gradient, in the model's order, that holds a NaN or an infinity on any rank; empty
  /// when none does. Collective. Not for f64.
  std::string first_bad_tensor();
  /// Of every bit of this rank's weights: ranks that hold the same ones have the same number.
  uint64_t weights_digest();

 private:
  struct Body;
  void run_micro_step(float grad_scale);
  void run_last_micro_step(float grad_scale);
  bool on_any_rank(bool here);
  void load_batch(std::span<const int32_t> tokens, std::span<const int32_t> targets);

  EngineOptions options_;
  Planned<Body> body_;
  std::unique_ptr<Communicator> ranks_;
  bool refresh_pending_ = false, refreshed_ = false;
  std::vector<float> host_losses_;
  // On a GPU, a micro-step's launches as one graph.
  bool graphs_ = false, warm_ = false;
  std::unique_ptr<Gpu::Graph> graph_;
  float graph_grad_scale_ = 0;
  double graph_flops_ = 0;
};

}  // namespace llmz::engine
