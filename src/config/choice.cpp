#include "src/config/choice.h"

#include <algorithm>

#include "llmz/config/schema.h"
#include "llmz/core/error.h"
#include "src/config/values.h"

namespace llmz::config {
namespace {

std::vector<std::string> names_of(const ListType& type) {
  std::vector<std::string> names;
  for (const Component& component : type.choices) names.push_back(component.name);
  return names;
}

const Component* find(const ListType& type, const std::string& name) {
  const auto has_name = [&](const Component& component) { return component.name == name; };
  const auto row = std::find_if(type.choices.begin(), type.choices.end(), has_name);
  return row == type.choices.end() ? nullptr : &*row;
}

/// The keys of an element that names `component`, beside the selector.
std::vector<Field> fields_of(const ListType& type, const Component& component) {
  std::vector<Field> fields = type.common.rows();
  const auto& own = component.fields.rows();
  fields.insert(fields.end(), own.begin(), own.end());
  return fields;
}

class ChoiceReader {
 public:
  ChoiceReader(const ListType& type, const Text& text, std::string path)
      : type_(type), text_(text), path_(std::move(path)) {}

  Choice read(const Json& value) {
    check_object(value, path_);
    const std::string selector = path_ + "." + type_.selector;
    const auto names = names_of(type_);
    check(value.contains(type_.selector), "{}: \"{}\" names no component: it needs \"{}\", one of {}",
          text_.where(path_), path_, type_.selector, fmt::join(names, ", "));
    const Json& name = value[type_.selector];
    const Component* component = name.is_string() ? find(type_, name.get<std::string>()) : nullptr;
    check(component != nullptr, "{}: \"{}\" = {} is not known; allowed: {}", text_.where(selector), selector,
          shown(name), fmt::join(names, ", "));
    choice_.name = component->name;
    fields_ = fields_of(type_, *component);
    apply_members("", value);
    return std::move(choice_);
  }

 private:
  void check_object(const Json& value, const std::string& path) const {
    check(value.is_object(), "{}: \"{}\" must be an object {{...}}, not {}", text_.where(path), path, shown(value));
  }

  /// `inner`: the path of `object` within the element.
  void apply_members(const std::string& inner, const Json& object) {
    for (const auto& [name, value] : object.items()) {
      const std::string key = join_path(inner, name), path = path_ + "." + key;
      if (key == type_.selector) continue;
      const auto is_key = [&](const Field& field) { return field.path == key; };
      const auto is_below = [&](const Field& field) { return field.path.starts_with(key + "."); };
      const auto row = std::find_if(fields_.begin(), fields_.end(), is_key);
      if (row != fields_.end()) {
        assign(*row, &choice_.settings, text_, path, value);
        choice_.given.push_back(key);
      } else if (std::any_of(fields_.begin(), fields_.end(), is_below)) {
        check_object(value, path);
        apply_members(key, value);
      } else {
        fail("{}: {}", text_.where(path), unknown(path));
      }
    }
  }

  std::string unknown(const std::string& path) const {
    std::vector<std::string> known = {path_ + "." + type_.selector}, siblings = {type_.selector};
    for (const Field& field : fields_) {
      known.push_back(path_ + "." + field.path);
      siblings.push_back(field.path);
    }
    return fmt::format("{} with \"{}\": \"{}\"", unknown_among(path, known, siblings), type_.selector, choice_.name);
  }

  const ListType& type_;
  const Text& text_;
  std::string path_;
  Choice choice_;
  std::vector<Field> fields_;
};

}  // namespace

Choice read_choice(const ListType& type, const Text& text, const std::string& path, const Json& value) {
  return ChoiceReader(type, text, path).read(value);
}

void take_rest(Choice& choice, const Fields<Bag>& fields, Bag from) {
  for (const Field& field : fields.rows()) {
    if (std::find(choice.given.begin(), choice.given.end(), field.path) != choice.given.end()) continue;
    assign(field, &choice.settings, {}, field.path, value_of(field, &from));
  }
}

Json choice_to_json(const ListType& type, Choice choice) {
  const Component* component = find(type, choice.name);
  check(component != nullptr, "\"{}\" = \"{}\" is not known; allowed: {}", type.selector, choice.name,
        fmt::join(names_of(type), ", "));
  Json object = {{type.selector, choice.name}};
  for (const Field& field : fields_of(type, *component)) {
    member(object, field.path) = value_of(field, &choice.settings);
  }
  return object;
}

}  // namespace llmz::config
