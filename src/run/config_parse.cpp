#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <optional>
#include <set>
#include <utility>

#include "llmz/core/builtin.h"
#include "llmz/core/error.h"
#include "llmz/core/nearest.h"
#include "llmz/optim/rule.h"
#include "llmz/run/config_io.h"
#include "llmz/run/presets.h"
#include "src/run/config_schema.h"

namespace llmz::run {
namespace {

namespace fs = std::filesystem;
using config::Json;
using config::shown;
using config::Text;

/// Fills one RunConfig from a file, the model files that it names, and overrides.
class RunReader : public config::Reader {
 public:
  /// `folder`: where the configuration lies; model names are looked up beside it.
  RunReader(RunConfig& config, fs::path folder)
      : Reader(schema(), config), config_(config), folder_(std::move(folder)) {}

  /// After the last override.
  void finish() {
    check(missing_model_.empty(), "{}", missing_model_);
    optim::settle(config_.optimizer);
  }

 private:
  bool apply_special(const Text& text, const std::string& path, const Json& value) override {
    if (path == "preset") {
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
    } else {
      return false;
    }
    return true;
  }

  /// Another method in the place of what was set so far; the rest of the configuration stays.
  void apply_preset(const std::string& name, const std::string& where) {
    const Preset* preset = find_preset(name);
    check(preset != nullptr, "{}: preset \"{}\" is unknown; known: {}", where, name, fmt::join(preset_names(), ", "));
    reset_method(config_);
    const Text text = config::parse_text(preset->json, "preset " + name);
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
  void apply_model(const Text& text, const Json& value) {
    if (value.is_string()) return load_model(value.get<std::string>(), text.where("model"));
    check(value.is_object(), "{}: \"model\" must be the name of a model or an object, not {}", text.where("model"),
          shown(value));
    apply_members(text, "model", value);
  }

  void load_model(const std::string& name, const std::string& where) {
    const std::optional<Text> text = find_model(name, where);
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
  std::optional<Text> find_model(const std::string& name, const std::string& where) {
    const fs::path models = folder_ / "models";
    const bool is_path = name.find('/') != std::string::npos || name.ends_with(".json");
    const fs::path file = is_path ? folder_ / name : models / (name + ".json");
    if (fs::is_regular_file(file)) return config::read_text(file.lexically_normal().string(), "model");
    if (is_path) {
      missing_model_ = fmt::format("{}: model file {} does not exist", where, file.string());
      return std::nullopt;
    }
    if (const BuiltinFile* built_in = find_builtin(builtin_models(), name)) {
      return config::parse_text(built_in->text, fmt::format("model {}", name), "model");
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

  RunConfig& config_;
  fs::path folder_;
  std::string missing_model_;  ///< what is wrong with a model's name, until another takes its place
};

RunConfig read_config(const Text& text, const std::vector<std::string>& overrides) {
  RunConfig config;
  RunReader reader(config, fs::path(text.source).parent_path());
  reader.apply_all(text);
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
  RunReader reader(config, {});
  reader.apply_override("preset=" + name);
  reader.finish();
  validate(config);
  return config;
}

RunConfig load_run_config(const std::string& path, const std::vector<std::string>& overrides) {
  const BuiltinFile* built_in = fs::is_regular_file(path) ? nullptr : find_builtin(builtin_configs(), path);
  if (built_in != nullptr) return parse_run_config(built_in->text, path, overrides);
  check(fs::exists(path), "{}: no such file{}", path, built_in_hint(path));
  return read_config(config::read_text(path), overrides);
}

RunConfig parse_run_config(std::string_view json, const std::string& source,
                           const std::vector<std::string>& overrides) {
  return read_config(config::parse_text(json, source), overrides);
}

}  // namespace llmz::run
