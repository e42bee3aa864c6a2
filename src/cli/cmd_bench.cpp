#include "src/cli/commands.h"

namespace llmz::cli {

Command add_bench_matmul(CLI::App& bench);
Command add_bench_ops(CLI::App& bench);
Command add_bench_step(CLI::App& bench);
Command add_bench_presets(CLI::App& bench);

Command add_bench(CLI::App& app) {
  CLI::App* parser = app.add_subcommand("bench", "Measure this machine: matrix products, each op, a whole step");
  parser->require_subcommand(1);
  set_example(*parser, "llmz bench step --model llama-60m --micro-batch 8 --sequence 256");
  const std::vector<Command> commands = {add_bench_matmul(*parser), add_bench_ops(*parser), add_bench_step(*parser),
                                         add_bench_presets(*parser)};
  return {parser, [commands] {
            for (const Command& command : commands) {
              if (command.parser->parsed()) return command.run();
            }
            return 2;
          }};
}

}  // namespace llmz::cli
