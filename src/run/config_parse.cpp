#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <optional>
#include <set>
#include <utility>

#include "config_schema.h"
#include "config_text.h"
#include "llmz/run/config_io.h"
#include "llmz/run/presets.h"
#include "llmz/core/builtin.h"
#include "llmz/core/error.h"
#include "llmz/core/nearest.h"

namespace llmz::train {
namespace {

namespace fs = std::filesystem;

/// A value as an error shows it: JSON, cut where it is long.
std::string shown(const Json& value) {
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

/// Writes one JSON value into the member that its key stands for.
class Assign {
 public:
  Assign(const Key& key, const Json& value, std::string where) : key_(key), value_(value), where_(std::move(where)) {}

  void operator()(bool* slot) const {
    if (!value_.is_boolean()) wrong_type("true or false");
    *slot = value_.get<bool>();
  }

  void operator()(int64_t* slot) const { *slot = whole_number<int64_t>(); }
  void operator()(uint64_t* slot) const { *slot = whole_number<uint64_t>(); }

  void operator()(float* slot) const {
    if (!value_.is_number()) wrong_type("a number");
    const float number = static_cast<float>(value_.get<double>());
    if (!std::isfinite(number))
      fail("{}: \"{}\" = {} is too large for a 32-bit float", where_, key_.path, shown(value_));
    check_range(number);
    *slot = number;
  }

  void operator()(std::string* slot) const {
    if (!value_.is_string()) wrong_type("a text");
    const std::string text = value_.get<std::string>();
    const auto& choices = key_.choices;
    check(choices.empty() || std::find(choices.begin(), choices.end(), text) != choices.end(),
          "{}: \"{}\" = {} is not known; allowed: {}", where_, key_.path, shown(value_), allowed(key_));
    *slot = text;
  }

  void operator()(std::vector<std::string>* slot) const {
    if (!value_.is_array()) wrong_type("a list of texts");
    std::vector<std::string> list;
    for (const Json& item : value_) {
      if (!item.is_string()) wrong_type("a list of texts");
      list.push_back(item.get<std::string>());
    }
    *slot = std::move(list);
  }

 private:
  [[noreturn]] void wrong_type(const char* expected) const {
    fail("{}: \"{}\" must be {}, not {} ({})", where_, key_.path, expected, shown(value_), value_.type_name());
  }

  void check_range(double number) const {
    check(key_.range.contains(number), "{}: \"{}\" = {} is out of range; allowed: {}", where_, key_.path, shown(value_),
          key_.range.text());
  }

  /// 1e4 is a whole number too, as far as a double counts exactly.
  template <class T>
  T whole_number() const {
    if (!value_.is_number()) wrong_type("a whole number");
    const double number = value_.get<double>();
    if (value_.is_number_float() && (number != std::floor(number) || std::abs(number) > 0x1p53)) {
      wrong_type("a whole number");
    }
    check_range(number);
    const bool negative = number < 0;
    const bool fits =
        value_.is_number_unsigned() ? std::in_range<T>(value_.get<uint64_t>()) : !negative || std::is_signed_v<T>;
    check(fits, "{}: \"{}\" = {} is out of range; allowed: {} to {}", where_, key_.path, shown(value_),
          std::numeric_limits<T>::min(), std::numeric_limits<T>::max());
    return value_.get<T>();
  }

  const Key& key_;
  const Json& value_;
  std::string where_;
};

/// Fills one RunConfig from a file, the model files that it names, and overrides.
class Reader {
 public:
  /// `folder`: where the configuration lies; model names are looked up beside it.
  Reader(RunConfig& config, fs::path folder) : config_(config), folder_(std::move(folder)) {}

  void apply_file(const ConfigText& text) {
    if (text.root.is_object() && text.root.contains("preset")) apply(text, "preset", text.root["preset"]);
    apply_members(text, "", text.root);
  }

  /// After the last override.
  void finish() const { check(missing_model_.empty(), "{}", missing_model_); }

  void apply_override(const std::string& argument) {
    const size_t equals = argument.find('=');
    const std::string source = "--set " + argument;
    check(equals != std::string::npos && equals > 0, "{}: must be key=value, as in --set train.steps=1000", source);
    const std::string path = argument.substr(0, equals), value = argument.substr(equals + 1);
    const ConfigText text = override_text(path, value, source);
    apply(text, path, text.root);
  }

 private:
  /// Takes over `value`, which stands at `path` in `text`.
  void apply(const ConfigText& text, const std::string& path, const Json& value) {
    if (const Key* key = find_key(path)) {
      std::visit(Assign(*key, value, text.where(path)), key->slot(config_));
    } else if (path == "preset") {
      check(value.is_string(), "{}: \"preset\" must be the name of a preset, not {}", text.where(path), shown(value));
      apply_preset(value.get<std::string>(), text.where(path));
    } else if (path == "precision" && value.is_string()) {
      apply_precision(value.get<std::string>(), text.where(path));
    } else if (path == "model") {
      apply_model(text, value);
    } else if (path == "model.base") {
      check(value.is_string(), "{}: \"model.base\" must be the name of a model, not {}", text.where(path),
            shown(value));
      load_model(value.get<std::string>(), text.where(path));
    } else if (is_section(path)) {
      apply_members(text, path, value);
    } else {
      fail("{}: {}", text.where(path), unknown_key(path));
    }
  }

  void apply_members(const ConfigText& text, const std::string& path, const Json& object) {
    check(object.is_object(), "{}: {} must be an object {{...}}, not {}", text.where(path),
          path.empty() ? "the configuration" : "\"" + path + "\"", shown(object));
    for (const auto& [name, value] : object.items()) {
      const std::string member = join_path(path, name);
      check(name.find('.') == std::string::npos,
            "{}: key \"{}\" has a dot in it; only --set takes dotted keys, in a file objects are nested",
            text.where(member), name);
      if (member != "model.base" && member != "preset") apply(text, member, value);
    }
  }

  /// Another method in the place of what was set so far; the rest of the configuration stays.
  void apply_preset(const std::string& name, const std::string& where) {
    const Preset* preset = find_preset(name);
    check(preset != nullptr, "{}: preset \"{}\" is unknown; known: {}", where, name, fmt::join(preset_names(), ", "));
    reset_method(config_);
    const ConfigText text = parse_config_text(preset->json, "preset " + name);
    apply_members(text, "", text.root);
  }

  void apply_precision(const std::string& name, const std::string& where) {
    std::vector<std::string> known;
    for (const PrecisionSet& set : precision_sets()) {
      if (name == set.name) return void(config_.precision = set.config);
      known.emplace_back(set.name);
    }
    fail("{}: precision \"{}\" is unknown; known: {}, or an object of the keys of `precision`", where, name,
         fmt::join(known, ", "));
  }

  /// A name, or an object that may start from one: {"base": name, keys that differ}.
  void apply_model(const ConfigText& text, const Json& value) {
    if (value.is_string()) return load_model(value.get<std::string>(), text.where("model"));
    check(value.is_object(), "{}: \"model\" must be the name of a model or an object, not {}", text.where("model"),
          shown(value));
    if (value.contains("base")) apply(text, "model.base", value["base"]);
    apply_members(text, "model", value);
  }

  void load_model(const std::string& name, const std::string& where) {
    const std::optional<ConfigText> text = find_model(name, where);
    if (!text) return;
    check(text->root.is_object() && !text->root.contains("base"),
          "{}: a model's file must be an object of model keys without \"base\"", text->source);
    missing_model_.clear();
    config_.model = {};
    apply_members(*text, "model", text->root);
  }

  /// "llama-60m" is <folder>/models/llama-60m.json or, failing that, built in; with a slash or the ending .json it is a
  /// path that starts at `folder_`. Nothing where there is no such model, which is an error unless an override names
  /// another one.
  std::optional<ConfigText> find_model(const std::string& name, const std::string& where) {
    const fs::path models = folder_ / "models";
    const bool is_path = name.find('/') != std::string::npos || name.ends_with(".json");
    const fs::path file = is_path ? folder_ / name : models / (name + ".json");
    if (fs::is_regular_file(file)) return read_config_text(file.lexically_normal().string(), "model");
    if (is_path) {
      missing_model_ = fmt::format("{}: model file {} does not exist", where, file.string());
      return std::nullopt;
    }
    if (const BuiltinFile* built_in = find_builtin(builtin_models(), name)) {
      return parse_config_text(built_in->text, fmt::format("model {}", name), "model");
    }
    const std::vector<std::string> known = known_models(models);
    missing_model_ = fmt::format("{}: no model \"{}\" in {} or built in; did you mean \"{}\"? known: {}", where, name,
                                 models.lexically_normal().string(), nearest_name(name, known), fmt::join(known, ", "));
    return std::nullopt;
  }

  /// Names in the folder `models`, and built-in ones.
  static std::vector<std::string> known_models(const fs::path& models) {
    std::vector<std::string> names = builtin_names(builtin_models());
    std::set<std::string> own;
    std::error_code ignored;  // a folder that is not there has no models
    for (const auto& entry : fs::directory_iterator(models, ignored)) {
      const std::string name = entry.path().stem().string();
      if (entry.path().extension() == ".json" && find_builtin(builtin_models(), name) == nullptr) own.insert(name);
    }
    names.insert(names.begin(), own.begin(), own.end());
    return names;
  }

  /// What stands behind the = of an override, as JSON of the key's type: texts may come without quotes, lists as a,b,c.
  static ConfigText override_text(const std::string& path, const std::string& value, const std::string& source) {
    const Json parsed = Json::parse(value, nullptr, /*allow_exceptions=*/false);
    ConfigText text{.root = value, .source = source, .lines = {}};
    RunConfig scratch;
    const Key* key = find_key(path);
    const bool is_text = key && std::holds_alternative<std::string*>(key->slot(scratch));
    const bool is_list = key && std::holds_alternative<std::vector<std::string>*>(key->slot(scratch));
    if (parsed.is_object()) text = parse_config_text(value, source, path);  // again, for its duplicate keys
    text.lines.clear();
    if (is_list && !parsed.is_array()) {
      text.root = split(value);
    } else if (!parsed.is_discarded() && !parsed.is_object() && (!is_text || parsed.is_string())) {
      text.root = parsed;
    }
    check(is_utf8(text.root), "--set {}: the value is not valid UTF-8", path);
    return text;
  }

  static Json split(const std::string& list) {
    Json parts = Json::array();
    for (size_t begin = 0; begin < list.size();) {
      const size_t end = std::min(list.find(',', begin), list.size());
      if (end > begin) parts.push_back(list.substr(begin, end - begin));
      begin = end + 1;
    }
    return parts;
  }

  static bool is_utf8(const Json& value) {
    try {
      (void)value.dump();
      return true;
    } catch (const Json::exception&) {
      return false;
    }
  }

  RunConfig& config_;
  fs::path folder_;
  std::string missing_model_;  ///< what is wrong with a model's name, until another takes its place
};

RunConfig read_config(const ConfigText& text, const std::vector<std::string>& overrides) {
  RunConfig config;
  Reader reader(config, fs::path(text.source).parent_path());
  reader.apply_file(text);
  for (const std::string& argument : overrides) reader.apply_override(argument);
  reader.finish();
  try {
    validate(config);
  } catch (const Error& error) {
    fail("{}: {}", text.source, error.what());
  }
  return config;
}

/// What a name that is no file may have meant.
std::string built_in_hint(const std::string& path) {
  const std::string stem = fs::path(path).stem().string();
  if (find_builtin(builtin_configs(), stem) != nullptr) return fmt::format("; built in is \"{}\"", stem);
  if (path.find('/') != std::string::npos || path.ends_with(".json")) return "";
  const std::vector<std::string> known = builtin_names(builtin_configs());
  return fmt::format(", and no built-in configuration; did you mean \"{}\"? built in: {}", nearest_name(path, known),
                     fmt::join(known, ", "));
}

}  // namespace

RunConfig with_preset(RunConfig config, const std::string& name) {
  Reader(config, {}).apply_override("preset=" + name);
  validate(config);
  return config;
}

RunConfig load_run_config(const std::string& path, const std::vector<std::string>& overrides) {
  const BuiltinFile* built_in = fs::is_regular_file(path) ? nullptr : find_builtin(builtin_configs(), path);
  if (built_in != nullptr) return parse_run_config(built_in->text, path, overrides);
  check(fs::exists(path), "{}: no such file{}", path, built_in_hint(path));
  return read_config(read_config_text(path), overrides);
}

RunConfig parse_run_config(std::string_view json, const std::string& source,
                           const std::vector<std::string>& overrides) {
  return read_config(parse_config_text(json, source), overrides);
}

}  // namespace llmz::train
