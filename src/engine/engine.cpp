#include "llmz/engine/engine.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "llmz/core/transfer.h"
#include "llmz/ops/elementwise.h"
#include "src/engine/engine_body.h"

namespace llmz::engine {

namespace {

/// A run on nothing: of one rank among options.place.size, which sends to no one.
struct Rehearsal {
  Memory recorder;
  DryCommunicator ranks;
  Exec exec;

  explicit Rehearsal(const EngineOptions& options)
      : recorder(options.device.type), ranks(options.place.rank, options.place.size), exec(recorder) {
    if (options.place.size > 1) exec.ranks = &ranks;
  }
};

}  // namespace

void Engine::Body::rehearse(Exec& exec, const EngineOptions& o) {
  DryCommunicator ranks(o.place.rank, o.place.size);
  if (o.place.size > 1) exec.ranks = &ranks;
  if (o.training) {
    model->begin_step(1);
    zero_gradients(exec);
    refresh(exec);
    for (auto& due : period_combinations(model->periods(), "refresh and random_refresh")) {
      model->begin_step(2, due);
      refresh(exec);
    }
    micro_step(exec, 1.0f);
    measure(exec);
    for (const auto& due : period_combinations(optimizer->periods(), "optimizer's refresh")) renew(exec, due, 1, 0.0);
    update(exec, 1, 0.0);
    WholeState(exec, *optimizer);
    if (o.build.probes) diagnose(exec);
  }
  evaluate(exec);
}

MemoryPlan Engine::plan(const EngineOptions& options) {
  return plan_of(
      options.device.type, [&](Memory& memory) { return Body(options, memory); },
      [&](Body& body, Exec& exec) { body.rehearse(exec, options); });
}

int Engine::fullest_rank(EngineOptions options) {
  options.place.rank = 0;
  if (options.place.size == 1 || !options.training) return 0;
  std::vector<size_t> owned(static_cast<size_t>(options.place.size));
  {
    Rehearsal rehearsal(options);
    const Body body(options, rehearsal.exec.memory);
    for (const auto& state : body.optimizer->states()) {
      const Owner owner = state.parameter->owner;
      if (owner.known()) owned[static_cast<size_t>(owner.rank)] += state.tensor.bytes();
    }
  }
  const auto most = static_cast<int>(std::max_element(owned.begin(), owned.end()) - owned.begin());
  if (most == 0) return 0;
  const size_t first = plan(options).totals().total;
  options.place.rank = most;
  return plan(options).totals().total > first ? most : 0;
}

StepTraffic Engine::traffic_per_step(const EngineOptions& options) {
  Rehearsal rehearsal(options);
  Exec& exec = rehearsal.exec;
  StepTraffic traffic;
  if (exec.ranks == nullptr) return traffic;
  Body body(options, exec.memory);
  body.model->begin_step(2, body.model->periods());
  body.refresh(exec);
  body.renew(exec, body.optimizer->periods(), 1, 0.0);
  traffic.refresh = exec.ranks->traffic();
  body.micro_step(exec, 1.0f);
  body.exchange_all(exec);
  body.exchange->finish(*exec.ranks, body.loss_sum);
  body.measure(exec);
  body.update(exec, 1, 0.0);
  traffic.step = exec.ranks->traffic() - traffic.refresh;
  for (const Parameter* p : body.model->parameters()) {
    const bool in_block = p->group == ParamGroup::blocks || p->group == ParamGroup::attention_output;
    if (!in_block || p->weight.rank() != 2) continue;
    const Tensor grad = p->grad.accumulator();
    traffic.linear += static_cast<double>(grad.bytes());
    traffic.dense_linear += static_cast<double>(p->weight.numel()) * static_cast<double>(dtype_bytes(grad.dtype));
  }
  return traffic;
}

double Engine::flops_per_micro_step(const EngineOptions& options) {
  Rehearsal rehearsal(options);
  Exec& exec = rehearsal.exec;
  Body body(options, exec.memory);
  if (options.training) {
    body.micro_step(exec, 1.0f);
  } else {
    body.evaluate(exec);
  }
  return exec.flops;
}

namespace {

std::unique_ptr<Communicator> communicator_of(const EngineOptions& options, const MakeCommunicator& make,
                                              Memory& memory) {
  auto ranks = make ? make(memory) : std::make_unique<DryCommunicator>();
  check(ranks->size() == options.place.size && ranks->rank() == options.place.rank,
        "an engine for rank {} of {} got a communicator for rank {} of {}", options.place.rank, options.place.size,
        ranks->rank(), ranks->size());
  return ranks;
}

}  // namespace

Engine::Engine(const EngineOptions& options, const MakeCommunicator& make_communicator)
    : options_(options),
      body_(
          options.device, [&](Memory& memory) { return Body(options, memory); },
          [&](Body& body, Exec& exec) { body.rehearse(exec, options); }),
      ranks_(communicator_of(options, make_communicator, memory())) {
  if (ranks_->name() != DryCommunicator::kName) exec().ranks = ranks_.get();
  if (Gpu* const gpu = memory().gpu(); gpu != nullptr) {
    gpu->set_tf32(options.tf32);
    // A graph holds its launches' arguments: nothing may be drawn anew in each pass.
    graphs_ = options.training && !gpu->synchronous() && !body_->model->draws_each_pass();
  }
}

Engine::~Engine() = default;

model::Model& Engine::model() { return *body_->model; }

optim::Optimizer& Engine::optimizer() {
  check(body_->optimizer != nullptr, "an engine for evaluation has no optimizer");
  return *body_->optimizer;
}

void Engine::initialise(uint64_t seed) {
  body_->model->initialise(exec(), seed);
  share_weights();
  if (body_->optimizer != nullptr) body_->optimizer->weights_changed(exec());
}

void Engine::share_weights() {
  if (exec().ranks == nullptr) return;
  std::vector<Tensor> weights;
  for (const Parameter* p : body_->model->parameters()) weights.push_back(p->weight);
  ranks_->broadcast(weights, 0);
}

void Engine::begin_step(int64_t step) {
  body_->model->begin_step(step);
  body_->model->clock().micro_step = options_.place.rank;  // micro-batches are counted over all ranks
  body_->zero_gradients(exec());
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
  copy_to_device<int32_t>(memory(), body_->tokens, tokens);
  copy_to_device<int32_t>(memory(), body_->targets, targets);
}

void Engine::micro_step(std::span<const int32_t> tokens, std::span<const int32_t> targets, float grad_scale,
                        bool last) {
  load_batch(tokens, targets);
  if (refresh_pending_) {
    body_->refresh(exec());
    if (exec().ranks != nullptr) load_batch(tokens, targets);  // the refresh looked at rank 0's
  }
  refresh_pending_ = false;
  if (last && exec().ranks != nullptr) {
    run_last_micro_step(grad_scale);
  } else {
    run_micro_step(grad_scale);
  }
  body_->model->clock().micro_step += options_.place.size;
}

/// Gradients set out while the pass runs, which a captured graph could not tell of.
void Engine::run_last_micro_step(float grad_scale) {
  if (options_.distributed.overlap) {
    body_->micro_step(exec(), grad_scale,
                      [this](size_t first, size_t last) { body_->exchange->ready(*ranks_, first, last); });
  } else {
    run_micro_step(grad_scale);
    body_->exchange_all(exec());
  }
  body_->exchange->finish(*ranks_, body_->loss_sum);
}

/// The first pass, and the first after a refresh, runs by itself (libraries choose their algorithms then; a graph would
/// not pay where each step refreshes), the next is captured, all others of the same arguments are that graph again.
void Engine::run_micro_step(float grad_scale) {
  if (!graphs_ || !warm_) {
    body_->micro_step(exec(), grad_scale);
    warm_ = true;
    return;
  }
  if (graph_ == nullptr || graph_grad_scale_ != grad_scale) {
    const double before = exec().flops;
    memory().gpu()->begin_capture();
    try {
      body_->micro_step(exec(), grad_scale);
    } catch (...) {
      memory().gpu()->abandon_capture();
      throw;
    }
    graph_ = memory().gpu()->end_capture();
    graph_grad_scale_ = grad_scale;
    graph_flops_ = exec().flops - before;
    exec().flops = before;
  }
  memory().gpu()->launch(*graph_);
  exec().flops += graph_flops_;
}

double Engine::loss_sum() { return host_scalar<double>(memory(), body_->loss_sum); }

double Engine::update(int64_t step, double lr) {
  body_->measure(exec());
  const double norm = static_cast<double>(host_scalar<float>(memory(), body_->clip->norm()));
  if (!std::isfinite(norm)) {
    const std::string bad = first_bad_tensor();
    throw NotFinite(
        fmt::format("step {}: the gradient norm is not finite; the first bad tensor is {}. Weights are unchanged. "
                    "Lower optimizer.lr, lengthen schedule.warmup, or resume from an earlier checkpoint",
                    step, bad.empty() ? "none (the sum of squares overflows)" : bad));
  }
  body_->renew(exec(), body_->optimizer->periods_due(step), step, lr);
  body_->update(exec(), step, lr);
  return norm;
}

std::vector<CodeError> Engine::diagnose(std::span<const int32_t> tokens, std::span<const int32_t> targets) {
  check(options_.build.probes, "an engine built without probes cannot diagnose");
  load_batch(tokens, targets);
  body_->zero_gradients(exec());
  body_->diagnose(exec());
  body_->zero_gradients(exec());
  std::vector<CodeError> errors;
  for (const codec::Probe& probe : body_->model->probes()) {
    const std::vector<double> norms = host_copy<double>(memory(), probe.norms);
    errors.push_back({probe.name, probe.what, norms[1] > 0 ? std::sqrt(norms[0] / norms[1]) : 0.0});
  }
  return errors;
}

std::span<const float> Engine::evaluate(std::span<const int32_t> tokens, std::span<const int32_t> targets) {
  load_batch(tokens, targets);
  body_->evaluate(exec());
  host_losses_ = host_copy<float>(memory(), body_->losses);
  return host_losses_;
}

namespace {

bool all_finite(Memory& memory, const Tensor& t) {
  const auto finite = [](const auto& values) {
    return std::all_of(values.begin(), values.end(), [](auto v) { return std::isfinite(static_cast<float>(v)); });
  };
  return t.dtype == DType::bf16 ? finite(host_copy<bf16>(memory, t)) : finite(host_copy<float>(memory, t));
}

/// Every bit counts, and where it stands: `digest` goes on over the tensor's words of 8 bytes, the last filled with 0.
uint64_t mix(uint64_t digest, const Tensor& t) {
  constexpr uint64_t kOdd = 0x9e3779b97f4a7c15;  // 2⁶⁴ over the golden ratio: a product mixes upwards, a rotation down
  const auto* bytes = static_cast<const std::byte*>(t.data);
  for (size_t at = 0, size = t.bytes(); at < size; at += sizeof(uint64_t)) {
    uint64_t word = 0;
    std::memcpy(&word, bytes + at, std::min(sizeof word, size - at));
    digest = (std::rotl(digest, 25) ^ word) * kOdd;
  }
  return digest;
}

}  // namespace

/// Whether it is so on any rank.
bool Engine::on_any_rank(bool here) {
  if (exec().ranks == nullptr) return here;
  const float mine = here ? 1.0f : 0.0f;
  copy_to_device<float>(memory(), body_->scalar, {&mine, 1});
  ranks_->all_reduce(body_->scalar);
  return host_scalar<float>(memory(), body_->scalar) > 0;
}

std::string Engine::first_bad_tensor() {
  // As the optimizer sees them: of what is split, a rank has only its own rows summed.
  const auto& parameters = options_.training ? body_->owned->parameters() : body_->model->parameters();
  for (const Parameter* p : parameters) {
    if (on_any_rank(!all_finite(memory(), p->weight))) return "weight " + p->name;
  }
  for (const Parameter* p : parameters) {
    const Tensor grad = p->grad.accumulator();
    if (grad.present() && on_any_rank(!all_finite(memory(), grad))) return "gradient " + p->name;
  }
  return "";
}

uint64_t Engine::weights_digest() {
  uint64_t digest = 0;
  for (const Parameter* p : model().parameters()) {
    HostMirror host(&memory(), p->weight);
    host.download();
    digest = mix(digest, host.tensor());
  }
  return digest;
}

}  // namespace llmz::engine
