#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "llmz/core/exec.h"
#include "llmz/core/parameter.h"
#include "llmz/ops/update.h"
#include "llmz/optim/config.h"

namespace llmz::optim {

/// A named state tensor of one parameter; `slot` is PyTorch's name for it (exp_avg …) where it has one.
struct State {
  const Parameter* parameter = nullptr;
  std::string slot;
  Tensor tensor;
  bool by_rows = true;  ///< its rows are the parameter's rows; else it belongs to the parameter as a whole
};

/// One step's common arguments.
struct StepArgs {
  int64_t step = 1;  ///< counts from 1
  float lr = 0;      ///< scheduled, times the parameter's own scale
  Tensor grad_scale;
};

/// What a rule is made from, beside its parameter; `index` selects its random numbers.
struct RuleContext {
  const config::Bag& settings;  ///< settings.get<T>(): those that the rule's row has fields for
  const StatePrecision& precision;
  Memory& memory;
  uint32_t index = 0;
  float weight_decay = 0;  ///< of this parameter
};

/// How one parameter is updated, and what is kept for it. A rule is one file, src/optim/rules/<name>.cpp: a class that
/// keeps its states in the constructor and calls its op in `step`, and a RuleRow.
class Rule {
 public:
  Rule(const RuleContext& context, const Parameter& parameter);
  virtual ~Rule() = default;
  Rule(const Rule&) = delete;
  Rule& operator=(const Rule&) = delete;

  virtual void step(Exec& exec, const StepArgs& args) = 0;

  /// The projector of a low-rank gradient has changed where projector->changed says so: states that live in its
  /// subspace follow. Called between a refresh and the first micro-step, if `refreshes`.
  virtual void refresh(Exec&) {}
  virtual bool refreshes() const { return false; }

  /// Steps between calls of `renew`, one number for each thing that the rule renews; none is the usual case.
  virtual std::vector<int64_t> periods() const { return {}; }
  /// Between backward and update of a step in which some of `periods` are due (all are in step 1): the gradient is
  /// complete and finite, and not scaled yet. A program of its own in the memory plan.
  virtual void renew(Exec&, const StepArgs&, [[maybe_unused]] std::span<const int64_t> due) {}

  /// The weight was set from outside.
  void weights_changed(Exec& exec);
  const Parameter& parameter() const { return parameter_; }
  /// All that a checkpoint holds of it, in the order in which it was kept.
  const std::vector<State>& states() const { return states_; }

 protected:
  /// A state that lives as long as the run, zeros at first: <parameter>.<slot>. Called by constructors.
  Tensor keep(const char* slot, const Shape& shape, DType dtype, bool by_rows = true);
  /// Type of a state that is like a moment: bf16 where precision.bf16_moments says so.
  DType moment_dtype() const { return moment_dtype_; }
  /// Type of sums and averages: f32, f64 for an f64 weight.
  DType statistic_dtype() const { return parameter_.weight.dtype == DType::f64 ? DType::f64 : DType::f32; }

  /// What the op of any update takes, of this parameter and step.
  ops::UpdateArgs update(const StepArgs& args) const;

 private:
  ops::WeightRounding rounding(int64_t step) const;

  const Parameter& parameter_;
  Memory* memory_;  ///< while it is being made
  std::vector<State> states_;
  Tensor master_;  ///< fp32 copy of a bf16 weight, or absent
  DType moment_dtype_ = DType::f32;
  bool stochastic_ = false;
  uint64_t seed_ = 0;
  uint32_t index_ = 0;
  float weight_decay_ = 0;
};

/// What of a matrix a rule must see where the ranks of a run share the optimizer's work (ZeRO). Vectors are always
/// updated by all.
enum class Owns : uint8_t {
  rows,   ///< any rows by themselves: every rank has an equal part
  whole,  ///< the whole matrix with its whole gradient: each matrix belongs to one rank
  all     ///< the whole matrix, on every rank: all do the same
};

/// One registered rule.
struct RuleRow {
  const char* name;
  const char* meaning;
  std::unique_ptr<Rule> (*make)(const RuleContext& context, const Parameter& parameter);
  const char* where = "all";  ///< what optimizer.name = this applies it to; AdamW gets the rest
  Owns owns = Owns::rows;
  /// Which parameters it can update; null: all. `needs` says it in words.
  bool (*suits)(const Parameter& parameter) = nullptr;
  const char* needs = nullptr;
  config::Fields<config::Bag> (*fields)() = nullptr;  ///< of its own settings
  /// Error for values of them that ranges cannot refuse; `entry`, which they stand in, is "optimizer.rules[0]".
  void (*check)(const config::Bag& settings, const std::string& entry) = nullptr;
  /// A form of AdamW: its settings by the keys of `optimizer`, which all have fields, and the value of
  /// optimizer.moments that stands for it.
  void (*from_keys)(const OptimizerConfig& config, config::Bag& settings) = nullptr;
  std::optional<Moments> moments = std::nullopt;
};

/// Known rules, the first of which takes what no other does.
using RuleTable = std::span<const RuleRow* const>;
RuleTable rule_table();

/// Makes a rule of class T: what `RuleRow::make` usually is.
template <class T>
std::unique_ptr<Rule> make_rule(const RuleContext& context, const Parameter& parameter) {
  return std::make_unique<T>(context, parameter);
}

inline bool is_matrix(const Parameter& p) { return p.weight.rank() == 2; }

/// The rule of one parameter.
struct RuleChoice {
  const RuleRow* row = nullptr;
  RulePlace place;
  config::Bag settings;

  /// How much of the parameter a rank must have.
  Owns owns(const Parameter& p) const { return is_matrix(p) ? row->owns : Owns::all; }
};

/// Which rule updates which parameter: of config.rules, then the one that config.name and config.moments name, then
/// AdamW, the first whose `where` has the parameter in it and which can update it. Throws Error for unknown rules
/// and places, and for an entry of config.rules that no parameter is left for.
std::vector<RuleChoice> choose_rules(const OptimizerConfig& config, const std::vector<Parameter*>& parameters,
                                     RuleTable table = rule_table());

/// What entries of config.rules leave out of their rule's settings becomes what the keys of `optimizer` say of it.
void settle(OptimizerConfig& config, RuleTable table = rule_table());

/// Whether `where` has the parameter in it: "all", a group ("blocks", with the attention's output projections;
/// "attention_output", "embedding", "head", "norms"), a kind ("matrix", "gain", "bias"), or both: "blocks.matrix".
bool is_in(const std::string& where, const Parameter& parameter);

}  // namespace llmz::optim
