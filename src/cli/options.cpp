#include <algorithm>
#include <charconv>
#include <limits>

#include "llmz/config/schema.h"
#include "llmz/core/error.h"
#include "src/cli/commands.h"

namespace llmz::cli {

void add_set_option(CLI::App& parser, std::vector<std::string>& overrides) {
  parser.add_option("--set", overrides, "Override a config key, e.g. --set train.steps=500; may be repeated")
      ->type_name("KEY=VALUE")
      ->expected(1)
      ->allow_extra_args(false)  // what follows a KEY=VALUE is something else
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

void add_field_option(CLI::App& parser, const config::Field& field, void* object) {
  std::string name = "--" + field.path;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return c == '_' || c == '.'; }, '-');
  const auto take = [field, object, name](const std::string& value) {
    config::set_from_text(field, object, value, name);
  };
  CLI::Option* option = parser.add_option_function<std::string>(name, take, field.meaning);
  const config::Json value = config::value_of(field, object);
  if (!value.is_null()) option->default_str(value.is_string() ? value.get<std::string>() : value.dump());
}

namespace {

/// `text` as a number in [low, high]; otherwise false.
bool in_range(const std::string& text, double low, double high) {
  double value = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  return code == std::errc() && end == text.data() + text.size() && value >= low && value <= high;
}

}  // namespace

CLI::Validator at_least(double low) {
  const std::string what = fmt::format("at least {}", low);
  const auto check = [low, what](std::string& text) {
    return in_range(text, low, std::numeric_limits<double>::max()) ? std::string() : "'" + text + "' must be " + what;
  };
  return CLI::Validator(check, "(" + what + ")");
}

CLI::Validator between(double low, double high) {
  const std::string what = fmt::format("{} to {}", low, high);
  const auto check = [low, high, what](std::string& text) {
    return in_range(text, low, high) ? std::string() : "'" + text + "' must be from " + what;
  };
  return CLI::Validator(check, "(" + what + ")");
}

CLI::Validator amount(std::vector<std::pair<std::string, double>> units) {
  const auto convert = [units](std::string& text) {
    double value = 0;
    const char* const end = text.data() + text.size();
    const auto [after, code] = std::from_chars(text.data(), end, value);
    std::string unit(after, end);
    unit.erase(0, unit.find_first_not_of(' '));
    std::vector<std::string> known;
    for (const auto& [name, factor] : units) {
      known.push_back(name);
      if (code != std::errc() || value <= 0 || CLI::detail::to_lower(name) != CLI::detail::to_lower(unit)) continue;
      text = fmt::format("{:.0f}", value * factor);
      return std::string();
    }
    return fmt::format("'{}' must be a number above 0 with a unit: {}", text, fmt::join(known, ", "));
  };
  return CLI::Validator(convert, "");
}

void set_example(CLI::App& parser, const std::string& example) { parser.footer("Example:\n  " + example); }

void add_placement(CLI::App& parser, std::string& device, std::optional<run::Compute>& precision) {
  parser.add_option("--device", device, "auto, cpu, cuda or cuda:1 …")->capture_default_str();
  const auto take = [&precision](const std::string& name) { precision = run::computes().value(name, "--precision"); };
  parser
      .add_option_function<std::string>(
          "--precision", take, "auto, fp32, tf32 or bf16; as trained on a GPU, fp32 on the CPU, where not given")
      ->check(CLI::IsMember(run::computes().list()));
}

}  // namespace llmz::cli
