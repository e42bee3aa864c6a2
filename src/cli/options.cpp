#include "src/cli/commands.h"

namespace llmz::cli {

void add_set_option(CLI::App& parser, std::vector<std::string>& overrides) {
  parser.add_option("--set", overrides, "Override a config key, e.g. --set train.steps=500; may be repeated")
      ->type_name("KEY=VALUE")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

void set_example(CLI::App& parser, const std::string& example) { parser.footer("Example:\n  " + example); }

}  // namespace llmz::cli
