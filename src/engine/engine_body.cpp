#include "src/engine/engine_body.h"

#include "llmz/core/transfer.h"
#include "llmz/ops/elementwise.h"

namespace llmz::engine {

namespace {

/// Refreshes of different periods take different memory, so each combination is a program of its own.
std::string name_of_refresh(const subspace::Clock& clock) {
  return clock.step == 0 ? ".start" : fmt::format(".every {}", fmt::join(clock.due, " and "));
}

constexpr size_t kMaxPeriods = 4;
constexpr int64_t kMegabyte = 1'000'000;

}  // namespace

std::vector<std::vector<int64_t>> period_combinations(const std::vector<int64_t>& periods, const char* keys) {
  check(periods.size() <= kMaxPeriods, "the {} keys have {} different values; at most {} are possible", keys,
        periods.size(), kMaxPeriods);
  std::vector<std::vector<int64_t>> all;
  for (unsigned choice = 1; choice < (1u << periods.size()); ++choice) {
    all.emplace_back();
    for (size_t i = 0; i < periods.size(); ++i) {
      if ((choice >> i & 1u) != 0) all.back().push_back(periods[i]);
    }
  }
  return all;
}

Engine::Body::Body(const EngineOptions& o, Memory& memory) {
  const bool shared = o.training && o.distributed.zero_stage > 0 && o.place.size > 1;
  model::BuildOptions build = o.build;
  build.gradients = o.training;
  build.row_multiple = shared ? o.place.size : 1;
  model = model::make_model(o.model, build, memory);
  model->clock().rank = o.place.rank;
  model->clock().ranks = o.place.size;
  if (o.training) {
    const auto rules = optim::choose_rules(o.optimizer, model->parameters(), o.rules);
    std::vector<optim::Owns> owns;
    for (size_t i = 0; i < rules.size(); ++i) owns.push_back(rules[i].owns(*model->parameters()[i]));
    owned = std::make_unique<OwnedRows>(model->parameters(), owns, shared, o.place);
    optimizer = std::make_unique<optim::Optimizer>(o.optimizer, owned->parameters(), rules, memory, o.state);
    clip = std::make_unique<optim::GradientClip>(o.optimizer.clip_norm, owned->parameters(), memory);
    exchange = std::make_unique<GradientExchange>(
        model->parameters(),
        GradientExchange::Options{.bucket_bytes = static_cast<size_t>(o.distributed.bucket_mb * kMegabyte),
                                  .reduction = [this](size_t i) { return owned->reduction(i); }});
  }
  const Shape batch = {o.micro_batch, o.sequence};
  tokens = memory.persistent("batch.tokens", Category::activations, batch, DType::i32);
  targets = memory.persistent("batch.targets", Category::activations, batch, DType::i32);
  losses = memory.persistent("batch.losses", Category::activations, {o.micro_batch * o.sequence},
                             o.build.precision.statistic());
  loss_sum = memory.persistent("batch.loss_sum", Category::activations, {1}, DType::f64);
  const bool f64 = o.build.precision.statistic() == DType::f64;
  scalar = memory.persistent("ranks.scalar", Category::communication, {1}, f64 ? DType::f64 : DType::f32);
}

void Engine::Body::zero_gradients(Exec& exec) {
  for (Parameter* p : model->parameters()) {
    const Tensor grad = p->grad.accumulator(), all = p->padded(grad);
    // A captured graph is replayed for the first micro-step too: on a GPU all products add.
    p->grad.stale = p->grad.starts_with_product && !exec.on_gpu();
    const int64_t kept = p->grad.stale ? grad.dim(0) : 0;
    ops::fill(exec, all.slice(0, kept, all.dim(0) - kept), 0.0f);
  }
  zero(exec.memory, loss_sum);
}

void Engine::Body::refresh(Exec& exec) {
  const std::string which = name_of_refresh(model->clock());
  if (model->refresh_due()) {
    if (exec.ranks != nullptr) exec.ranks->broadcast(tokens, 0);  // one batch, whatever the number of ranks
    const ProgramScope program(exec.memory, "refresh" + which);
    model->refresh(exec, tokens);
    if (exec.ranks != nullptr) share_bases(exec);
  }
  if (optimizer->refreshes()) {
    const ProgramScope program(exec.memory, "moments" + which);
    optimizer->refresh(exec);
  }
}

void Engine::Body::share_bases(Exec& exec) {
  std::vector<std::vector<Tensor>> by_owner(static_cast<size_t>(exec.ranks->size()));
  for (const subspace::State& state : model->codec_states()) {
    if (state.renewed) by_owner[static_cast<size_t>(state.owner)].push_back(state.tensor);
  }
  for (const subspace::Spectrum& spectrum : model->spectra()) {
    auto& tensors = by_owner[static_cast<size_t>(spectrum.owner)];
    tensors.push_back(spectrum.values);
    tensors.push_back(spectrum.total);
  }
  for (int owner = 0; owner < exec.ranks->size(); ++owner) {
    const auto& tensors = by_owner[static_cast<size_t>(owner)];
    if (!tensors.empty()) exec.ranks->broadcast(tensors, owner);
  }
}

void Engine::Body::diagnose(Exec& exec) {
  const ProgramScope program(exec.memory, "diagnose");
  model->clock().probing = true;
  model->forward_backward(exec, losses, {tokens, targets}, 1.0f);
  model->clock().probing = false;
}

void Engine::Body::micro_step(Exec& exec, float grad_scale, const model::Model::GradientsReady& ready) {
  const ProgramScope program(exec.memory, "micro_step");
  model->forward_backward(exec, losses, {tokens, targets}, grad_scale, ready);
  ops::add_sum(exec, loss_sum, losses);
}

void Engine::Body::exchange_all(Exec& exec) { exchange->ready(*exec.ranks, 0, model->parameters().size()); }

void Engine::Body::measure(Exec& exec) {
  const ProgramScope program(exec.memory, "gradient_norm");
  clip->measure(exec);
}

void Engine::Body::renew(Exec& exec, const std::vector<int64_t>& due, int64_t step, double lr) {
  if (due.empty()) return;
  // Different periods take different memory, so each combination is a program of its own.
  const ProgramScope program(exec.memory, fmt::format("renew.every {}", fmt::join(due, " and ")));
  optimizer->renew(exec, due, step, lr, clip->scale());
}

void Engine::Body::update(Exec& exec, int64_t step, double lr) {
  const ProgramScope program(exec.memory, "update");
  optimizer->step(exec, step, lr, clip->scale());
  if (owned->shared()) owned->gather_weights(*exec.ranks);
}

void Engine::Body::evaluate(Exec& exec) {
  const ProgramScope program(exec.memory, "evaluate");
  model->evaluate(exec, losses, {tokens, targets});
}

}  // namespace llmz::engine
