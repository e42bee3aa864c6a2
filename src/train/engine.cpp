#include "llmz/train/engine.h"

#include <algorithm>
#include <cmath>

#include "llmz/ops/elementwise.h"

namespace llmz::train {

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

  void begin_step(Exec& exec) {
    for (const Parameter* p : model->parameters()) ops::fill(exec, p->grad.dense, 0.0f);
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
      body.begin_step(exec);
      body.micro_step(exec, 1.0f);
      body.measure(exec);
      body.update(exec, 1, 0.0);
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

void Engine::begin_step() { body_->begin_step(*exec_); }

void Engine::load_batch(std::span<const int32_t> tokens, std::span<const int32_t> targets) {
  const auto count = static_cast<size_t>(options_.micro_batch * options_.sequence);
  check(tokens.size() == count && targets.size() == count, "a micro-batch holds {} tokens, not {}", count,
        tokens.size());
  std::copy(tokens.begin(), tokens.end(), body_->tokens.as<int32_t>());
  std::copy(targets.begin(), targets.end(), body_->targets.as<int32_t>());
}

double Engine::micro_step(std::span<const int32_t> tokens, std::span<const int32_t> targets, float grad_scale) {
  load_batch(tokens, targets);
  body_->micro_step(*exec_, grad_scale);
  const float* losses = body_->losses.as<float>();
  double sum = 0;
  for (int64_t i = 0; i < body_->losses.numel(); ++i) sum += static_cast<double>(losses[i]);
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
    if (p->grad.dense.present() && !all_finite(p->grad.dense)) return "gradient " + p->name;
  }
  return "";
}

}  // namespace llmz::train
