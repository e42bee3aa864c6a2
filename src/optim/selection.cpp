#include <algorithm>
#include <optional>

#include "llmz/core/error.h"
#include "llmz/optim/optimizer.h"

namespace llmz::optim {
namespace {

const config::Names<ParamGroup>& groups() {
  static const config::Names<ParamGroup> names = {{"blocks", ParamGroup::blocks},
                                                  {"attention_output", ParamGroup::attention_output},
                                                  {"embedding", ParamGroup::embedding},
                                                  {"head", ParamGroup::head},
                                                  {"norms", ParamGroup::norms}};
  return names;
}

/// Without embeddings, which are a group.
const config::Names<ParamKind>& kinds() {
  static const config::Names<ParamKind> names = {
      {"matrix", ParamKind::matrix}, {"gain", ParamKind::gain}, {"bias", ParamKind::bias}};
  return names;
}

/// A group and a kind, each absent where any will do.
struct Place {
  std::optional<ParamGroup> group;
  std::optional<ParamKind> kind;
};

Place parse_place(const std::string& where) {
  if (where == RulePlace().where) return {};
  const size_t dot = where.find('.');
  const std::string first = where.substr(0, dot);
  Place place{.group = groups().find(first), .kind = std::nullopt};
  const bool both = dot != std::string::npos;
  if (both || !place.group) place.kind = kinds().find(both ? where.substr(dot + 1) : first);
  check(both ? place.group && place.kind : place.group || place.kind,
        "optimizer.rules: where = \"{}\" is not known; it is {}, a group ({}), a kind ({}), or both: blocks.matrix",
        where, RulePlace().where, fmt::join(groups().list(), ", "), fmt::join(kinds().list(), ", "));
  return place;
}

/// Null when there is none of that name.
const RuleRow* find_row(std::string_view name, RuleTable table) {
  const auto row = std::find_if(table.begin(), table.end(), [&](const RuleRow* r) { return name == r->name; });
  return row == table.end() ? nullptr : *row;
}

const RuleRow& row_named(std::string_view name, RuleTable table, const std::string& key) {
  if (const RuleRow* row = find_row(name, table)) return *row;
  std::vector<std::string> known;
  for (const RuleRow* row : table) known.emplace_back(row->name);
  fail("{} '{}' is unknown; known: {}", key, name, fmt::join(known, ", "));
}

/// One entry of the list that parameters go through.
struct Entry {
  RuleChoice choice;
  std::string name;  ///< in messages
  bool asked_for;    ///< it must find something
  bool used = false;
  bool forestalled = false;  ///< an earlier entry took what it could have updated
};

/// Why an entry has found no parameter.
std::string_view reason(const Entry& entry) {
  if (entry.forestalled) {
    return "has nothing left: earlier entries of optimizer.rules take all that it could update; leave it out, or give "
           "them a narrower \"where\"";
  }
  if (entry.choice.row->needs != nullptr) return entry.choice.row->needs;
  return "has nothing to update: the model has no such parameter";
}

std::vector<Entry> entries_of(OptimizerConfig config, RuleTable table) {
  settle(config, table);
  std::vector<Entry> entries;
  for (size_t i = 0; i < config.rules.size(); ++i) {
    const config::Choice& chosen = config.rules[i];
    const std::string name = fmt::format("optimizer.rules[{}]", i);
    const auto& place = chosen.settings.get<RulePlace>();
    entries.push_back({{&row_named(chosen.name, table, name + ".use"), place, chosen.settings},
                       fmt::format("{} (where \"{}\")", name, place.where),
                       true});
  }
  const auto add = [&](const RuleRow& row, std::string name, bool asked_for) {
    RuleChoice choice{&row, {.where = row.where}, {}};
    if (row.from_keys != nullptr) row.from_keys(config, choice.settings);
    entries.push_back({std::move(choice), std::move(name), asked_for});
  };
  const RuleRow& rest = *table.front();
  if (config.name != rest.name) add(row_named(config.name, table, "optimizer.name"), "optimizer.name", true);
  const auto form =
      std::find_if(table.begin(), table.end(), [&](const RuleRow* row) { return row->moments == config.moments; });
  if (form != table.end() && *form != &rest) {
    add(**form, fmt::format("optimizer.moments = \"{}\"", moment_kinds().name(config.moments)), true);
  }
  add(rest, rest.name, false);
  return entries;
}

}  // namespace

bool is_in(const std::string& where, const Parameter& p) {
  const Place place = parse_place(where);
  const bool in_group = !place.group || *place.group == p.group ||
                        (*place.group == ParamGroup::blocks && p.group == ParamGroup::attention_output);
  return in_group && (!place.kind || *place.kind == p.kind);
}

std::vector<RuleChoice> choose_rules(const OptimizerConfig& config, const std::vector<Parameter*>& parameters,
                                     RuleTable table) {
  validate(config);
  std::vector<Entry> entries = entries_of(config, table);
  std::vector<RuleChoice> choices;
  for (const Parameter* p : parameters) {
    bool taken = false;
    for (Entry& entry : entries) {
      const RuleRow& row = *entry.choice.row;
      if (!is_in(entry.choice.place.where, *p) || (row.suits != nullptr && !row.suits(*p))) continue;
      entry.forestalled = entry.forestalled || taken;
      if (taken) continue;
      taken = entry.used = true;
      choices.push_back(entry.choice);
    }
  }
  for (const Entry& entry : entries) {
    if (!entry.used && entry.asked_for && !parameters.empty()) fail("{} {}", entry.name, reason(entry));
  }
  return choices;
}

void settle(OptimizerConfig& config, RuleTable table) {
  for (config::Choice& rule : config.rules) {
    const RuleRow* row = find_row(rule.name, table);
    if (row == nullptr || row->from_keys == nullptr) continue;
    config::Bag from;
    row->from_keys(config, from);
    config::take_rest(rule, row->fields(), std::move(from));
  }
}

std::vector<std::string> optimizer_names() {
  std::vector<std::string> names;
  for (const RuleRow* row : rule_table()) {
    if (!row->moments || row == rule_table().front()) names.emplace_back(row->name);
  }
  return names;
}

const config::Names<Moments>& moment_kinds() {
  static const config::Names<Moments> names = {
      {"full", Moments::full}, {"factored", Moments::factored}, {"subspace", Moments::subspace}};
  return names;
}

const config::Names<AtRefresh>& refresh_policies() {
  static const config::Names<AtRefresh> names = {
      {"keep", AtRefresh::keep}, {"reset", AtRefresh::reset}, {"rotate", AtRefresh::rotate}};
  return names;
}

const config::Names<Bf16Weights>& bf16_weights() {
  static const config::Names<Bf16Weights> names = {
      {"master", Bf16Weights::master}, {"stochastic", Bf16Weights::stochastic}, {"nearest", Bf16Weights::nearest}};
  return names;
}

void validate(const OptimizerConfig& config) {
  check(config.first_moment_bits == 32 || config.first_moment_bits == 8,
        "optimizer.first_moment_bits = {} is not known; allowed: 32, 8", config.first_moment_bits);
  check(config.first_moment_bits == 32 || config.moments == Moments::factored,
        "optimizer.first_moment_bits = 8 goes with optimizer.moments = \"factored\", not \"{}\"",
        moment_kinds().name(config.moments));
  for (size_t i = 0; i < config.rules.size(); ++i) {
    const config::Choice& rule = config.rules[i];
    parse_place(rule.settings.get<RulePlace>().where);
    const RuleRow* row = find_row(rule.name, rule_table());
    if (row != nullptr && row->check != nullptr) row->check(rule.settings, fmt::format("optimizer.rules[{}]", i));
  }
}

}  // namespace llmz::optim
