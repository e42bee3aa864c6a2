#include <set>

#include "llmz/config/schema.h"
#include "src/config/values.h"

namespace llmz::config {
namespace {

std::string code(const std::string& text) { return "`" + text + "`"; }

std::string allowed_markdown(const Allowed& allowed) {
  std::string text = allowed.range.text();
  for (const std::string& choice : allowed.choices) text += (text.empty() ? "" : ", ") + code(choice);
  return text;
}

std::string row_markdown(const Field& field, const std::string& name, void* defaults) {
  return fmt::format("| {} | {} | {} | {} | {} |\n", name, type_name(field.slot(defaults)),
                     code(value_of(field, defaults).dump()), allowed_markdown(field.allowed), field.meaning);
}

/// A list of components: its selector, the keys of every element, and those of each component.
std::string list_markdown(const std::string& path, const ListType& type) {
  std::vector<std::string> names;
  for (const Component& component : type.choices) names.push_back(component.name);
  const std::string element = path + "[].";
  std::string text = fmt::format("| {} | text |  | {} | {} |\n", code(element + type.selector),
                                 allowed_markdown(one_of(names)), type.meaning);
  Bag defaults;
  for (const Field& field : type.common.rows()) text += row_markdown(field, code(element + field.path), &defaults);
  for (const Component& component : type.choices) {
    for (const Field& field : component.fields.rows()) {
      text += row_markdown(field, fmt::format("{} of {}", code(element + field.path), code(component.name)), &defaults);
    }
  }
  return text;
}

}  // namespace

Json value_to_json(const Schema& schema, void* object) {
  Json root = Json::object();
  for (const Field& field : schema.fields()) member(root, field.path) = value_of(field, object);
  return root;
}

Json changes_to_json(const Schema& schema, void* object, void* defaults) {
  Json root = Json::object();
  for (const Field& field : schema.fields()) {
    Json value = value_of(field, object);
    if (value != value_of(field, defaults)) member(root, field.path) = std::move(value);
  }
  return root;
}

std::string tables_markdown(const Schema& schema, void* defaults) {
  std::string text;
  for (const Section& section : schema.sections()) {
    text += fmt::format("\n## `{}`\n\n{}\n\n| key | type | default | allowed | meaning |\n|---|---|---|---|---|\n",
                        section.name, section.meaning);
    std::set<std::string> families;
    for (const Field& field : schema.fields()) {
      if (!field.path.starts_with(section.name + ".")) continue;
      if (!field.family.empty() && !families.insert(field.family).second) continue;
      text += row_markdown(field, code(field.family.empty() ? field.path : field.family), defaults);
      if (field.list) text += list_markdown(field.path, *field.list);
    }
  }
  return text;
}

}  // namespace llmz::config
