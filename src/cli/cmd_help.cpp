#include <algorithm>
#include <memory>

#include "llmz/core/error.h"
#include "llmz/core/nearest.h"
#include "llmz/core/version.h"
#include "src/cli/commands.h"

namespace llmz::cli {
namespace {

std::vector<std::string> names_of(const CLI::App& parent) {
  std::vector<std::string> names;
  for (const CLI::App* parser : parent.get_subcommands([](const CLI::App*) { return true; })) {
    names.push_back(parser->get_name());
  }
  return names;
}

/// Of the program, a command or a command's command.
int help(const CLI::App& app, const std::vector<std::string>& words) {
  const CLI::App* parser = &app;
  std::string parents, path = app.get_name();
  for (const std::string& word : words) {
    const std::vector<std::string> names = names_of(*parser);
    check(!names.empty(), "`{}` has no commands of its own, so none is called '{}'", path, word);
    check(std::find(names.begin(), names.end(), word) != names.end(), "{}", no_command(*parser, word));
    parser = parser->get_subcommand(word);
    parents = path;
    path += " " + word;
  }
  fmt::print("{}", parser == &app ? program_help(app) : parser->help(parents));
  return 0;
}

}  // namespace

/// Not App::help, which gives that of the command in progress.
std::string program_help(const CLI::App& app) {
  return app.get_formatter()->make_help(&app, "llmz", CLI::AppFormatMode::Normal);
}

std::string no_command(const CLI::App& parent, const std::string& word) {
  return fmt::format("there is no command '{}'; did you mean '{}'? `llmz --help` lists them", word,
                     nearest_name(word, names_of(parent)));
}

Command add_help(CLI::App& app) {
  auto words = std::make_shared<std::vector<std::string>>();
  CLI::App* parser = app.add_subcommand("help", "What the program, or a command, is for and takes");
  parser->add_option("COMMAND", *words, "Name of a command, or of a command and one of its own: bench step");
  set_example(*parser, "llmz help train\n  llmz help bench step");
  return {parser, [&app, words] { return help(app, *words); }};
}

Command add_version(CLI::App& app) {
  CLI::App* parser = app.add_subcommand("version", "Which llmz this is; `llmz doctor` tells what it was built with");
  set_example(*parser, "llmz version");
  return {parser, [] {
            fmt::print("{}\n", version_line());
            return 0;
          }};
}

}  // namespace llmz::cli
