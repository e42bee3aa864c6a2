#include <utility>

#include "llmz/config/schema.h"
#include "llmz/core/error.h"
#include "src/config/values.h"

namespace llmz::config {
namespace {

Json split(const std::string& list) {
  Json parts = Json::array();
  for (size_t begin = 0; begin < list.size();) {
    const size_t end = std::min(list.find(',', begin), list.size());
    if (end > begin) parts.push_back(list.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

bool is_utf8(const Json& value) {
  try {
    (void)value.dump();
    return true;
  } catch (const Json::exception&) {
    return false;
  }
}

/// Whether the key's member is one of these alternatives of Slot.
template <class... T>
bool holds(const Field* field, void* object) {
  if (field == nullptr) return false;
  const Slot slot = field->slot(object);
  return (std::holds_alternative<T>(slot) || ...);
}

/// What a command line says of a key, as JSON of the key's type; `field` may be null: an object, or no key at all.
Text text_of(const Field* field, void* object, const std::string& path, const std::string& value,
             const std::string& source) {
  const Json parsed = Json::parse(value, nullptr, /*allow_exceptions=*/false);
  Text text{.root = value, .source = source, .lines = {}};
  const bool is_text = holds<std::string*, std::optional<std::string>*, Named>(field, object);
  const bool is_list = holds<std::vector<std::string>*>(field, object);
  const bool has_keys = parsed.is_object() || holds<std::vector<Choice>*>(field, object);
  if (has_keys) text = parse_text(value, source, path);  // again, for its duplicate keys
  text.lines.clear();
  if (is_list && !parsed.is_array()) {
    text.root = split(value);
  } else if (!has_keys && !parsed.is_discarded() && (!is_text || parsed.is_string())) {
    text.root = parsed;
  }
  check(is_utf8(text.root), "\"{}\": the value is not valid UTF-8", path);
  return text;
}

}  // namespace

void Reader::apply_override(const std::string& argument) {
  const size_t equals = argument.find('=');
  const std::string source = "--set " + argument;
  check(equals != std::string::npos && equals > 0, "{}: must be key=value, as in --set train.steps=1000", source);
  const std::string path = argument.substr(0, equals), value = argument.substr(equals + 1);
  const Text text = text_of(schema_.find(path), object_, path, value, source);
  apply(text, path, text.root);
}

void Reader::apply(const Text& text, const std::string& path, const Json& value) {
  if (const Field* field = schema_.find(path)) {
    assign(*field, object_, text, path, value);
  } else if (apply_special(text, path, value)) {
    return;
  } else if (schema_.is_object(path)) {
    apply_members(text, path, value);
  } else {
    fail("{}: {}", text.where(path), schema_.unknown_key(path));
  }
}

void Reader::apply_members(const Text& text, const std::string& path, const Json& object) {
  check(object.is_object(), "{}: {} must be an object {{...}}, not {}", text.where(path),
        path.empty() ? "the configuration" : "\"" + path + "\"", shown(object));
  for (const auto& [name, value] : object.items()) {
    const bool nested = name.find('.') == std::string::npos;
    if (nested && schema_.is_special(join_path(path, name))) apply(text, join_path(path, name), value);
  }
  for (const auto& [name, value] : object.items()) {
    const std::string member = join_path(path, name);
    check(name.find('.') == std::string::npos,
          "{}: key \"{}\" has a dot in it; only --set takes dotted keys, in a file objects are nested",
          text.where(member), name);
    if (!schema_.is_special(member)) apply(text, member, value);
  }
}

void set_from_text(const Field& field, void* object, const std::string& value, const std::string& source) {
  const Text text = text_of(&field, object, field.path, value, source);
  assign(field, object, text, field.path, text.root);
}

}  // namespace llmz::config
