#include <algorithm>
#include <array>

#include "llmz/core/error.h"
#include "llmz/optim/optimizer.h"

namespace llmz::optim {
namespace {

std::string_view name_of(ParamGroup group) {
  switch (group) {
    case ParamGroup::blocks: return "blocks";
    case ParamGroup::attention_output: return "attention_output";
    case ParamGroup::embedding: return "embedding";
    case ParamGroup::head: return "head";
    case ParamGroup::norms: return "norms";
  }
  return "";
}

std::string_view name_of(ParamKind kind) {
  switch (kind) {
    case ParamKind::matrix: return "matrix";
    case ParamKind::gain: return "gain";
    case ParamKind::bias: return "bias";
    case ParamKind::embedding: return "embedding";
  }
  return "";
}

constexpr std::array<std::string_view, 5> kGroups = {"blocks", "attention_output", "embedding", "head", "norms"};
constexpr std::array<std::string_view, 3> kKinds = {"matrix", "gain", "bias"};

bool is_one_of(std::string_view name, std::span<const std::string_view> known) {
  return std::find(known.begin(), known.end(), name) != known.end();
}

/// A group and a kind, each empty where any will do.
struct Place {
  std::string_view group, kind;
};

Place parse_place(std::string_view where) {
  if (where == "all") return {};
  const size_t dot = where.find('.');
  const std::string_view first = where.substr(0, dot);
  Place place;
  bool known = is_one_of(first, kGroups);
  if (dot != std::string_view::npos) {
    place = {first, where.substr(dot + 1)};
    known = known && is_one_of(place.kind, kKinds);
  } else if (known) {
    place.group = first;
  } else {
    place.kind = first;
    known = is_one_of(first, kKinds);
  }
  check(known,
        "optimizer.rules: where = \"{}\" is not known; it is all, a group ({}), a kind ({}), or both: blocks.matrix",
        where, fmt::join(kGroups, ", "), fmt::join(kKinds, ", "));
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
  const auto form = std::find_if(table.begin(), table.end(), [&](const RuleRow* row) {
    return row->moments != nullptr && config.moments == row->moments;
  });
  if (form != table.end() && *form != &rest) {
    add(**form, fmt::format("optimizer.moments = \"{}\"", config.moments), true);
  }
  add(rest, rest.name, false);
  return entries;
}

}  // namespace

bool is_in(const std::string& where, const Parameter& p) {
  const Place place = parse_place(where);
  const bool in_group = place.group.empty() || place.group == name_of(p.group) ||
                        (place.group == "blocks" && p.group == ParamGroup::attention_output);
  return in_group && (place.kind.empty() || place.kind == name_of(p.kind));
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
    if (row->moments == nullptr || row == rule_table().front()) names.emplace_back(row->name);
  }
  return names;
}

std::vector<std::string> moment_kinds() {
  std::vector<std::string> kinds;
  for (const RuleRow* row : rule_table()) {
    if (row->moments != nullptr) kinds.emplace_back(row->moments);
  }
  return kinds;
}

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
  for (size_t i = 0; i < config.rules.size(); ++i) {
    const config::Choice& rule = config.rules[i];
    parse_place(rule.settings.get<RulePlace>().where);
    const RuleRow* row = find_row(rule.name, rule_table());
    if (row != nullptr && row->check != nullptr) row->check(rule.settings, fmt::format("optimizer.rules[{}]", i));
  }
}

}  // namespace llmz::optim
