#include "src/cli/commands.h"

namespace llmz::cli {

Command add_data_prepare(CLI::App& data);
Command add_data_inspect(CLI::App& data);

Command add_data(CLI::App& app) {
  CLI::App* parser = app.add_subcommand("data", "Turn text into token shards, or look into them");
  parser->require_subcommand(1);
  set_example(*parser, "llmz data prepare --input text/ --out data/text --tokenizer train:8192");
  const std::vector<Command> commands = {add_data_prepare(*parser), add_data_inspect(*parser)};
  return {parser, [commands] {
            for (const Command& command : commands) {
              if (command.parser->parsed()) return command.run();
            }
            return 2;
          }};
}

}  // namespace llmz::cli
