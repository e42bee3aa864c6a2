#include <algorithm>
#include <cstdio>
#include <exception>
#include <iterator>
#include <new>

#include "llmz/core/builtin.h"
#include "llmz/core/error.h"
#include "llmz/core/log.h"
#include "llmz/core/version.h"
#include "llmz/run/presets.h"
#include "src/cli/commands.h"
#include "src/cli/ranks.h"

namespace llmz::cli {

Command add_doctor(CLI::App& app);
Command add_data(CLI::App& app);
Command add_init(CLI::App& app);
Command add_plan(CLI::App& app);
Command add_train(CLI::App& app);
Command add_eval(CLI::App& app);
Command add_generate(CLI::App& app);
Command add_bench(CLI::App& app);
Command add_grads(CLI::App& app);
Command add_help(CLI::App& app);
Command add_version(CLI::App& app);

}  // namespace llmz::cli

namespace {

constexpr const char* kFirstSteps =
    "llmz doctor                                   what this machine can do\n"
    "  llmz data prepare --input book.txt --out data/mine --tokenizer train:4096 --validation 0.02\n"
    "  llmz init --data data/mine --time 2h mine.json    a configuration for it, every key explained\n"
    "  llmz plan mine.json                           the memory that it takes, to the byte\n"
    "  llmz train mine.json\n"
    "  llmz eval out/mine --data data/mine\n"
    "  llmz generate out/mine --prompt \"Once upon a time\"\n"
    "  llmz help COMMAND                             all that a command takes";

/// The names that the program knows by itself.
std::string built_in() {
  using namespace llmz;
  return fmt::format(
      "\n\nBuilt in (llmz train NAME, \"model\": NAME, \"preset\": NAME):\n  configurations  {}\n  models          {}\n"
      "  presets         {}\n",
      fmt::join(builtin_names(builtin_configs()), ", "), fmt::join(builtin_names(builtin_models()), ", "),
      fmt::join(run::preset_names(), ", "));
}

int run(int argc, char** argv) {
  CLI::App app{"llmz: pretrain LLaMA and GPT-2 models with small activations, from one JSON file", "llmz"};
  app.set_version_flag("--version", llmz::version_line());
  app.require_subcommand(1);
  app.fallthrough();  // --log-level may stand after the command too
  app.failure_message(CLI::FailureMessage::help);
  std::string log_level = "info";
  app.add_option("--log-level", log_level, "trace, debug, info, warn, error or off")->capture_default_str();
  llmz::cli::set_example(app, kFirstSteps + built_in());

  using namespace llmz::cli;
  const Command commands[] = {add_doctor(app), add_data(app), add_init(app),     add_plan(app),
                              add_train(app),  add_eval(app), add_generate(app), add_bench(app),
                              add_grads(app),  add_help(app), add_version(app)};
  if (argc == 1) {
    fmt::print("{}", program_help(app));
    return 0;
  }
  const auto is_named = [&](const Command& c) { return c.parser->get_name() == argv[1]; };
  if (argc > 1 && argv[1][0] != '-' && std::none_of(std::begin(commands), std::end(commands), is_named)) {
    std::fprintf(stderr, "llmz: %s\n", no_command(app, argv[1]).c_str());
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
