#include "llmz/train/engine.h"

#include <algorithm>
#include <cmath>

#include "llmz/core/transfer.h"
#include "llmz/ops/elementwise.h"

namespace llmz::train {

namespace {

/// Refreshes of different periods take different memory, so each combination is a program of its own.
std::string name_of_refresh(const codec::Clock& clock) {
  return clock.step == 0 ? ".start" : fmt::format(".every {}", fmt::join(clock.due, " and "));
}

constexpr size_t kMaxPeriods = 4;

/// Every non-empty choice of some of the periods.
std::vector<std::vector<int64_t>> combinations(const std::vector<int64_t>& periods) {
  check(periods.size() <= kMaxPeriods,
        "the refresh and random_refresh keys have {} different values; at most {} are possible", periods.size(),
        kMaxPeriods);
  std::vector<std::vector<int64_t>> all;
  for (unsigned choice = 1; choice < (1u << periods.size()); ++choice) {
    all.emplace_back();
    for (size_t i = 0; i < periods.size(); ++i) {
      if ((choice >> i & 1u) != 0) all.back().push_back(periods[i]);
    }
  }
  return all;
}

}  // namespace

/// Everything that is built twice: once against the recording memory, once against the arena.
struct Engine::Body {
  std::unique_ptr<model::Model> model;
  std::unique_ptr<optim::Optimizer> optimizer;
  std::unique_ptr<optim::GradientClip> clip;
  Tensor tokens, targets, losses;
  Tensor loss_sum;  ///< over the micro-steps of a step

  Body(const EngineOptions& o, Memory& memory) {
    model::BuildOptions build = o.build;
    build.gradients = o.training;
    model = model::make_model(o.model, build, memory);
    if (o.training) {
      optimizer = optim::make_optimizer(o.optimizer, model->parameters(), memory, o.state);
      clip = std::make_unique<optim::GradientClip>(o.optimizer.clip_norm, model->parameters(), memory);
    }
    const Shape batch = {o.micro_batch, o.sequence};
    tokens = memory.persistent("batch.tokens", Category::activations, batch, DType::i32);
    targets = memory.persistent("batch.targets", Category::activations, batch, DType::i32);
    losses = memory.persistent("batch.losses", Category::activations, {o.micro_batch * o.sequence},
                               o.build.precision.statistic());
    loss_sum = memory.persistent("batch.loss_sum", Category::activations, {1}, DType::f64);
  }

  void zero_gradients(Exec& exec) {
    for (const Parameter* p : model->parameters()) ops::fill(exec, p->grad.accumulator(), 0.0f);
    zero(exec.memory, loss_sum);
  }
  /// What a step with due refreshes does before its first micro-step.
  void refresh(Exec& exec) {
    const std::string which = name_of_refresh(model->clock());
    if (model->refresh_due()) {
      const ProgramScope program(exec.memory, "refresh" + which);
      model->refresh(exec, tokens);
    }
    if (optimizer->refreshes()) {
      const ProgramScope program(exec.memory, "moments" + which);
      optimizer->refresh(exec);
    }
  }
  void diagnose(Exec& exec) {
    const ProgramScope program(exec.memory, "diagnose");
    model->clock().probing = true;
    model->forward_backward(exec, losses, tokens, targets, 1.0f);
    model->clock().probing = false;
  }
  void micro_step(Exec& exec, float grad_scale) {
    const ProgramScope program(exec.memory, "micro_step");
    model->forward_backward(exec, losses, tokens, targets, grad_scale);
    ops::add_sum(exec, loss_sum, losses);
  }
  void measure(Exec& exec) {
    const ProgramScope program(exec.memory, "gradient_norm");
    clip->measure(exec);
  }
  void update(Exec& exec, int64_t step, double lr) {
    const ProgramScope program(exec.memory, "update");
    optimizer->step(exec, step, lr, clip->scale());
  }
  void evaluate(Exec& exec) {
    const ProgramScope program(exec.memory, "evaluate");
    model->evaluate(exec, losses, tokens, targets);
  }
};

MemoryPlan Engine::plan(const EngineOptions& options) {
  Memory recorder(options.device.type);
  Exec exec(recorder);
  {
    Body body(options, recorder);
    if (options.training) {
      body.model->begin_step(0);
      body.zero_gradients(exec);
      body.refresh(exec);
      for (auto& due : combinations(body.model->periods())) {
        body.model->begin_step(1, due);
        body.refresh(exec);
      }
      body.micro_step(exec, 1.0f);
      body.measure(exec);
      body.update(exec, 1, 0.0);
      if (options.build.probes) body.diagnose(exec);
    }
    body.evaluate(exec);
  }
  return recorder.finish();
}

double Engine::flops_per_micro_step(const EngineOptions& options) {
  Memory recorder(options.device.type);
  Exec exec(recorder);
  Body body(options, recorder);
  if (options.training) {
    body.micro_step(exec, 1.0f);
  } else {
    body.evaluate(exec);
  }
  return exec.flops;
}

Engine::Engine(const EngineOptions& options)
    : options_(options),
      memory_(std::make_unique<Memory>(plan(options), options.device)),
      exec_(std::make_unique<Exec>(*memory_)),
      body_(std::make_unique<Body>(options, *memory_)) {
  if (Gpu* const gpu = memory_->gpu(); gpu != nullptr) {
    gpu->set_tf32(options.tf32);
    // A graph holds its launches' arguments: nothing may be drawn anew in each pass.
    graphs_ = options.training && !gpu->synchronous() && !nn::draws_each_pass(options.build.activations);
  }
}

Engine::~Engine() = default;

model::Model& Engine::model() { return *body_->model; }

optim::Optimizer& Engine::optimizer() {
  check(body_->optimizer != nullptr, "an engine for evaluation has no optimizer");
  return *body_->optimizer;
}

void Engine::initialise(uint64_t seed) {
  body_->model->initialise(*exec_, seed);
  if (body_->optimizer != nullptr) body_->optimizer->weights_changed(*exec_);
}

void Engine::begin_step(int64_t step) {
  body_->model->begin_step(step - 1);
  body_->zero_gradients(*exec_);
  refresh_pending_ = !body_->model->clock().due.empty();
  refreshed_ = body_->model->refresh_due();
  if (refresh_pending_) {  // the graph's projectors are of the past; a new one is made at the second pass from here
    graph_.reset();
    warm_ = false;
  }
}

void Engine::load_batch(std::span<const int32_t> tokens, std::span<const int32_t> targets) {
  const auto count = static_cast<size_t>(options_.micro_batch * options_.sequence);
  check(tokens.size() == count && targets.size() == count, "a micro-batch holds {} tokens, not {}", count,
        tokens.size());
  copy_to_device<int32_t>(*memory_, body_->tokens, tokens);
  copy_to_device<int32_t>(*memory_, body_->targets, targets);
}

void Engine::micro_step(std::span<const int32_t> tokens, std::span<const int32_t> targets, float grad_scale) {
  load_batch(tokens, targets);
  if (refresh_pending_) body_->refresh(*exec_);
  refresh_pending_ = false;
  run_micro_step(grad_scale);
  ++body_->model->clock().micro_step;
}

/// The first pass, and the first after a refresh, runs by itself (libraries choose their algorithms then; a graph would
/// not pay where each step refreshes), the next is captured, all others of the same arguments are that graph again.
void Engine::run_micro_step(float grad_scale) {
  if (!graphs_ || !warm_) {
    body_->micro_step(*exec_, grad_scale);
    warm_ = true;
    return;
  }
  if (graph_ == nullptr || graph_grad_scale_ != grad_scale) {
    const double before = exec_->flops;
    memory_->gpu()->begin_capture();
    try {
      body_->micro_step(*exec_, grad_scale);
    } catch (...) {
      memory_->gpu()->abandon_capture();
      throw;
    }
    graph_ = memory_->gpu()->end_capture();
    graph_grad_scale_ = grad_scale;
    graph_flops_ = exec_->flops - before;
    exec_->flops = before;
  }
  memory_->gpu()->launch(*graph_);
  exec_->flops += graph_flops_;
}

double Engine::loss_sum() { return host_scalar<double>(*memory_, body_->loss_sum); }

double Engine::update(int64_t step, double lr) {
  body_->measure(*exec_);
  const double norm = static_cast<double>(host_scalar<float>(*memory_, body_->clip->norm()));
  if (!std::isfinite(norm)) {
    const std::string bad = first_bad_tensor();
    fail(
        "step {}: the gradient norm is not finite; the first bad tensor is {}. Weights are unchanged. Lower "
        "optimizer.lr, "
        "lengthen schedule.warmup, or resume from an earlier checkpoint",
        step, bad.empty() ? "none (the sum of squares overflows)" : bad);
  }
  body_->update(*exec_, step, lr);
  return norm;
}

std::vector<CodeError> Engine::diagnose(std::span<const int32_t> tokens, std::span<const int32_t> targets) {
  check(options_.build.probes, "an engine built without probes cannot diagnose");
  load_batch(tokens, targets);
  body_->zero_gradients(*exec_);
  body_->diagnose(*exec_);
  body_->zero_gradients(*exec_);
  std::vector<CodeError> errors;
  for (const codec::Probe& probe : body_->model->probes()) {
    const std::vector<double> norms = host_copy<double>(*memory_, probe.norms);
    errors.push_back({probe.name, probe.what, norms[1] > 0 ? std::sqrt(norms[0] / norms[1]) : 0.0});
  }
  return errors;
}

std::span<const float> Engine::evaluate(std::span<const int32_t> tokens, std::span<const int32_t> targets) {
  load_batch(tokens, targets);
  body_->evaluate(*exec_);
  host_losses_ = host_copy<float>(*memory_, body_->losses);
  return host_losses_;
}

namespace {

bool all_finite(Memory& memory, const Tensor& t) {
  const auto finite = [](const auto& values) {
    return std::all_of(values.begin(), values.end(), [](auto v) { return std::isfinite(static_cast<float>(v)); });
  };
  return t.dtype == DType::bf16 ? finite(host_copy<bf16>(memory, t)) : finite(host_copy<float>(memory, t));
}

}  // namespace

std::string Engine::first_bad_tensor() {
  for (const Parameter* p : body_->model->parameters()) {
    if (!all_finite(*memory_, p->weight)) return "weight " + p->name;
  }
  for (const Parameter* p : body_->model->parameters()) {
    const Tensor grad = p->grad.accumulator();
    if (grad.present() && !all_finite(*memory_, grad)) return "gradient " + p->name;
  }
  return "";
}

}  // namespace llmz::train
