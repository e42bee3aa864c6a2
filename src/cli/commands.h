#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "llmz/config/fields.h"
#include "llmz/run/config.h"

namespace llmz::cli {

/// A subcommand, made by add_<name> in cmd_<name>.cpp, which its parent's list of them names: its parser, and what to
/// do when it was chosen. `run` returns the exit code and throws Error.
struct Command {
  CLI::App* parser = nullptr;
  std::function<int()> run;
  bool takes_ranks = false;  ///< mpirun may start it as several processes
};

/// `--set a.b=value`, as often as wanted.
void add_set_option(CLI::App& parser, std::vector<std::string>& overrides);

void add_field_option(CLI::App& parser, const config::Field& field, void* object);
/// --text-field and so on, one option for each of a component's settings; errors are those of the field. `object`, of
/// which they are members, outlives the parser.
template <class T>
void add_options(CLI::App& parser, const config::Fields<T>& fields, T& object) {
  for (const config::Field& field : fields.rows()) add_field_option(parser, field, &object);
}

/// An option that takes the names of an enumeration; `value`, which outlives the parser, is its default.
template <class E>
CLI::Option* add_choice(CLI::App& parser, const std::string& name, E& value, const config::Names<E>& names,
                        const std::string& meaning) {
  const auto take = [&value, &names, name](const std::string& text) { value = names.value(text, name); };
  return parser.add_option_function<std::string>(name, take, meaning)
      ->check(CLI::IsMember(names.list()))
      ->default_str(names.name(value));
}

/// Validators whose errors and help are short: "must be at least 1".
CLI::Validator at_least(double low);
/// Turns a number with one of the units ("8GB", "1.5 h") into a plain one; letters may be large or small.
CLI::Validator amount(std::vector<std::pair<std::string, double>> units);

/// --device and --precision of commands that use a finished model (run::place).
void add_placement(CLI::App& parser, std::string& device, std::optional<run::Compute>& precision);
CLI::Validator between(double low, double high);

/// What `llmz`, `llmz help` and `llmz --help` print.
std::string program_help(const CLI::App& app);
/// That `parent` has no command `word`, with the nearest.
std::string no_command(const CLI::App& parent, const std::string& word);

/// The "Example:" line under a subcommand's help.
void set_example(CLI::App& parser, const std::string& example);

}  // namespace llmz::cli
