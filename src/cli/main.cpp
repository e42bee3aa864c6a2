#include <algorithm>
#include <cstdio>
#include <exception>
#include <iterator>
#include <new>

#include "llmz/core/error.h"
#include "llmz/core/log.h"
#include "llmz/core/version.h"
#include "src/cli/commands.h"
#include "src/cli/ranks.h"

namespace {

int run(int argc, char** argv) {
  CLI::App app{"llmz: pretrain LLaMA and GPT-2 models with small activations, from one JSON file", "llmz"};
  app.set_version_flag("--version", llmz::version_line());
  app.require_subcommand(1);
  app.fallthrough();  // --log-level may stand after the command too
  app.failure_message(CLI::FailureMessage::help);
  std::string log_level = "info";
  app.add_option("--log-level", log_level, "trace, debug, info, warn, error or off")->capture_default_str();
  llmz::cli::set_example(app, "llmz train configs/quickstart.json\n  llmz COMMAND --help");

  using namespace llmz::cli;
  const Command commands[] = {add_data(app), add_train(app), add_eval(app),  add_generate(app),
                              add_plan(app), add_bench(app), add_grads(app), add_doctor(app)};
  const auto is_named = [&](const Command& c) { return c.parser->get_name() == argv[1]; };
  if (argc > 1 && argv[1][0] != '-' && std::none_of(std::begin(commands), std::end(commands), is_named)) {
    std::fprintf(stderr, "llmz: there is no command '%s'; `llmz --help` lists them\n", argv[1]);
    return 2;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& e) {  // --help, --version
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    std::fprintf(stderr, "llmz: %s. `llmz --help` and `llmz COMMAND --help` list what there is.\n", e.what());
    return 2;
  }
  llmz::init_logging(log_level);
  for (const Command& command : commands) {
    if (!command.parser->parsed()) continue;
    if (!command.takes_ranks && refuse_ranks(command.parser->get_name())) return 2;
    return command.run();
  }
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const llmz::Error& e) {
    std::fprintf(stderr, "llmz: %s\n", e.what());
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "llmz: out of memory; `llmz plan CONFIG` shows what a run needs\n");
  } catch (const std::exception& e) {
    std::fprintf(stderr, "llmz: unexpected error: %s\n", e.what());
  }
  return 1;
}
