#include "llmz/optim/optimizer.h"

#include <algorithm>

#include "llmz/ops/elementwise.h"
#include "llmz/ops/optimizer.h"
#include "llmz/ops/projector.h"

namespace llmz::optim {
namespace {

struct Row {
  const char* name;
  std::unique_ptr<Optimizer> (*make)(const OptimizerConfig&, const std::vector<Parameter*>&, Memory&,
                                     const StatePrecision&);
};

constexpr Row kRegistry[] = {{"adamw", make_adamw}};

}  // namespace

std::unique_ptr<Optimizer> make_optimizer(const OptimizerConfig& config, const std::vector<Parameter*>& parameters,
                                          Memory& memory, const StatePrecision& precision) {
  for (const Row& row : kRegistry) {
    if (config.name == row.name) return row.make(config, parameters, memory, precision);
  }
  fail("optimizer.name '{}' is unknown; known: {}", config.name, fmt::join(optimizer_names(), ", "));
}

std::vector<std::string> optimizer_names() {
  std::vector<std::string> names;
  for (const Row& row : kRegistry) names.emplace_back(row.name);
  return names;
}

std::vector<std::string> moment_kinds() { return {"full", "factored", "subspace"}; }

std::vector<std::string> refresh_policies() { return {"keep", "reset", "rotate"}; }

void validate(const OptimizerConfig& config) {
  const auto check_known = [](const std::string& value, const std::vector<std::string>& known, const char* key) {
    check(std::find(known.begin(), known.end(), value) != known.end(), "{} = \"{}\" is not known; allowed: {}", key,
          value, fmt::join(known, ", "));
  };
  check_known(config.moments, moment_kinds(), "optimizer.moments");
  check_known(config.subspace.at_refresh, refresh_policies(), "optimizer.subspace.at_refresh");
  check(config.first_moment_bits == 32 || config.first_moment_bits == 8,
        "optimizer.first_moment_bits = {} is not known; allowed: 32, 8", config.first_moment_bits);
  check(config.first_moment_bits == 32 || config.moments == "factored",
        "optimizer.first_moment_bits = 8 goes with optimizer.moments = \"factored\", not \"{}\"", config.moments);
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
  const auto is_split = [](const Parameter* p) { return p->shard.whole > 0; };
  const bool spread = std::any_of(parameters_.begin(), parameters_.end(), is_split);
  for (const Parameter* p : parameters_) {
    if (spread && !is_split(p) && exec.ranks->rank() > 0) continue;  // all ranks have it: counted once
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
