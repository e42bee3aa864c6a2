#include "llmz/train/engine.h"

#include <algorithm>
#include <cmath>

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

  Body(const EngineOptions& o, Memory& memory) {
    model::BuildOptions build = o.build;
    build.gradients = o.training;
    model = model::make_model(o.model, build, memory);
    if (o.training) {
      optimizer = optim::make_optimizer(o.optimizer, model->parameters(), memory);
      clip = std::make_unique<optim::GradientClip>(o.optimizer.clip_norm, model->parameters(), memory);
    }
    const Shape batch = {o.micro_batch, o.sequence};
    tokens = memory.persistent("batch.tokens", Category::activations, batch, DType::i32);
    targets = memory.persistent("batch.targets", Category::activations, batch, DType::i32);
    losses = memory.persistent("batch.losses", Category::activations, {o.micro_batch * o.sequence},
                               o.build.precision.statistic());
  }

  void zero_gradients(Exec& exec) {
    for (const Parameter* p : model->parameters()) ops::fill(exec, p->grad.accumulator(), 0.0f);
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
  Memory recorder;
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
  Memory recorder;
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
      memory_(std::make_unique<Memory>(plan(options))),
      exec_(std::make_unique<Exec>(*memory_)),
      body_(std::make_unique<Body>(options, *memory_)) {}

Engine::~Engine() = default;

model::Model& Engine::model() { return *body_->model; }

optim::Optimizer& Engine::optimizer() {
  check(body_->optimizer != nullptr, "an engine for evaluation has no optimizer");
  return *body_->optimizer;
}

void Engine::initialise(uint64_t seed) { body_->model->initialise(*exec_, seed); }

void Engine::begin_step(int64_t step) {
  body_->model->begin_step(step - 1);
  body_->zero_gradients(*exec_);
  refresh_pending_ = !body_->model->clock().due.empty();
  refreshed_ = body_->model->refresh_due();
}

void Engine::load_batch(std::span<const int32_t> tokens, std::span<const int32_t> targets) {
  const auto count = static_cast<size_t>(options_.micro_batch * options_.sequence);
  check(tokens.size() == count && targets.size() == count, "a micro-batch holds {} tokens, not {}", count,
        tokens.size());
  std::copy(tokens.begin(), tokens.end(), body_->tokens.as<int32_t>());
  std::copy(targets.begin(), targets.end(), body_->targets.as<int32_t>());
}

double Engine::micro_step(std::span<const int32_t> tokens, std::span<const int32_t> targets, float grad_scale) {
  load_batch(tokens, targets);
  if (refresh_pending_) body_->refresh(*exec_);
  refresh_pending_ = false;
  body_->micro_step(*exec_, grad_scale);
  ++body_->model->clock().micro_step;
  const Tensor losses = body_->losses;
  double sum = 0;
  for (int64_t i = 0; i < losses.numel(); ++i) {
    sum += losses.dtype == DType::f64 ? losses.as<double>()[i] : static_cast<double>(losses.as<float>()[i]);
  }
  return sum;
}

double Engine::update(int64_t step, double lr) {
  body_->measure(*exec_);
  const double norm = static_cast<double>(*body_->clip->norm().as<float>());
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
    const double* norms = probe.norms.as<double>();
    errors.push_back({probe.name, probe.what, norms[1] > 0 ? std::sqrt(norms[0] / norms[1]) : 0.0});
  }
  return errors;
}

std::span<const float> Engine::evaluate(std::span<const int32_t> tokens, std::span<const int32_t> targets) {
  load_batch(tokens, targets);
  body_->evaluate(*exec_);
  return {body_->losses.as<float>(), static_cast<size_t>(body_->losses.numel())};
}

namespace {

bool all_finite(const Tensor& t) {
  const float* x = t.as<float>();
  return std::all_of(x, x + t.numel(), [](float v) { return std::isfinite(v); });
}

}  // namespace

std::string Engine::first_bad_tensor() const {
  for (const Parameter* p : body_->model->parameters()) {
    if (!all_finite(p->weight)) return "weight " + p->name;
  }
  for (const Parameter* p : body_->model->parameters()) {
    const Tensor grad = p->grad.accumulator();
    if (grad.present() && !all_finite(grad)) return "gradient " + p->name;
  }
  return "";
}

}  // namespace llmz::train
