#include "llmz/optim/optimizer.h"

#include <algorithm>
#include <set>

#include "llmz/ops/elementwise.h"
#include "llmz/ops/optimizer.h"
#include "llmz/ops/projector.h"

namespace llmz::optim {
Optimizer::Optimizer(const OptimizerConfig& config, const std::vector<Parameter*>& parameters,
                     const std::vector<RuleChoice>& choices, Memory& memory, const StatePrecision& precision)
    : elsewhere_(std::make_unique<Memory>(memory.target())) {
  for (size_t i = 0; i < parameters.size(); ++i) {
    const Parameter& p = *parameters[i];
    const RuleChoice& choice = choices.at(i);
    const RuleContext context{.settings = choice.settings,
                              .precision = precision,
                              .memory = p.owner.elsewhere ? *elsewhere_ : memory,
                              .index = p.stream,
                              .weight_decay = weight_decay_of(config, p) * choice.place.decay_scale};
    const double scale = static_cast<double>(lr_scale_of(config, p)) * static_cast<double>(choice.place.lr_scale);
    rows_.push_back({&p, scale, choice.row->make(context, p)});
  }
}

StepArgs Optimizer::args_of(const Row& row, int64_t step, double lr, const Tensor& grad_scale) const {
  return {.step = step, .lr = static_cast<float>(lr * row.lr_scale), .grad_scale = grad_scale};
}

void Optimizer::step(Exec& exec, int64_t step, double lr, Tensor grad_scale) {
  // Low-rank gradients first: they are expanded with the norms' gains, which must still be those of the backward pass.
  for (const bool low : {true, false}) {
    for (const Row& row : rows_) {
      if (row.parameter->owner.elsewhere || row.parameter->grad.low.present() != low) continue;
      row.rule->step(exec, args_of(row, step, lr, grad_scale));
    }
  }
}

void Optimizer::refresh(Exec& exec) {
  for (const Row& row : rows_) {
    if (!row.parameter->owner.elsewhere) row.rule->refresh(exec);
  }
}

bool Optimizer::refreshes() const {
  return std::any_of(rows_.begin(), rows_.end(), [](const Row& row) { return row.rule->refreshes(); });
}

std::vector<int64_t> Optimizer::periods() const {
  std::set<int64_t> all;
  for (const Row& row : rows_) {
    for (const int64_t period : row.rule->periods()) all.insert(period);
  }
  return {all.begin(), all.end()};
}

std::vector<int64_t> Optimizer::periods_due(int64_t step) const {
  std::vector<int64_t> due = periods();
  std::erase_if(due, [&](int64_t period) { return (step - 1) % period != 0; });
  return due;
}

void Optimizer::renew(Exec& exec, std::span<const int64_t> due, int64_t step, double lr, Tensor grad_scale) {
  for (const Row& row : rows_) {
    if (row.parameter->owner.elsewhere) continue;
    std::vector<int64_t> own = row.rule->periods();
    std::erase_if(own, [&](int64_t period) { return std::find(due.begin(), due.end(), period) == due.end(); });
    if (!own.empty()) row.rule->renew(exec, args_of(row, step, lr, grad_scale), own);
  }
}

void Optimizer::weights_changed(Exec& exec) {
  for (const Row& row : rows_) {
    if (!row.parameter->owner.elsewhere) row.rule->weights_changed(exec);
  }
}

std::vector<Optimizer::State> Optimizer::states() const {
  std::vector<State> all;
  for (const Row& row : rows_) all.insert(all.end(), row.rule->states().begin(), row.rule->states().end());
  return all;
}

std::unique_ptr<Optimizer> make_optimizer(const OptimizerConfig& config, const std::vector<Parameter*>& parameters,
                                          Memory& memory, const StatePrecision& precision, RuleTable table) {
  return std::make_unique<Optimizer>(config, parameters, choose_rules(config, parameters, table), memory, precision);
}

float lr_scale_of(const OptimizerConfig& config, const Parameter& parameter) {
  switch (parameter.group) {
    case ParamGroup::blocks: return config.lr_scale.blocks;
    case ParamGroup::attention_output: return config.lr_scale.blocks * config.lr_scale.attention_output;
    case ParamGroup::embedding: return config.lr_scale.embedding;
    case ParamGroup::head: return config.lr_scale.head;
    case ParamGroup::norms: return config.lr_scale.norms;
  }
  return 1.0f;
}

float weight_decay_of(const OptimizerConfig& config, const Parameter& parameter) {
  bool decays = true;
  if (parameter.kind == ParamKind::embedding) decays = config.decay_on.embedding;
  if (parameter.kind == ParamKind::gain || parameter.group == ParamGroup::norms) decays = config.decay_on.norms;
  if (parameter.kind == ParamKind::bias && parameter.group != ParamGroup::norms) decays = config.decay_on.biases;
  return decays ? config.weight_decay : 0.0f;
}

GradientClip::GradientClip(float max_norm, const std::vector<Parameter*>& parameters, Memory& memory)
    : max_norm_(max_norm), parameters_(parameters) {
  const bool f64 = !parameters.empty() && parameters.front()->weight.dtype == DType::f64;
  total_ = memory.persistent("clip.total", Category::optimizer, {1}, f64 ? DType::f64 : DType::f32);
  norm_ = memory.persistent("clip.norm", Category::optimizer, {1}, DType::f32);
  scale_ = memory.persistent("clip.scale", Category::optimizer, {1}, DType::f32);
}

void GradientClip::measure(Exec& exec) {
  ops::fill(exec, total_, 0.0f);
  const auto is_spread = [](const Parameter* p) { return p->shard.whole > 0 || p->owner.known(); };
  const bool spread = std::any_of(parameters_.begin(), parameters_.end(), is_spread);
  for (const Parameter* p : parameters_) {
    if (p->owner.elsewhere) continue;
    if (spread && !is_spread(p) && exec.ranks->rank() > 0) continue;  // all ranks have it: counted once
    if (p->grad.low.present()) {
      ops::expanded_sum_of_squares(exec, total_, p->grad.low);
    } else {
      ops::sum_of_squares(exec, total_, p->grad.dense);
    }
  }
  if (spread) exec.ranks->all_reduce(total_);
  ops::clip_coefficient(exec, norm_, scale_, total_, max_norm_);
}

}  // namespace llmz::optim
