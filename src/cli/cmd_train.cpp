#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>

#include "llmz/core/system.h"
#include "llmz/run/config_io.h"
#include "llmz/run/trainer.h"
#include "src/cli/commands.h"
#include "src/cli/ranks.h"

namespace llmz::cli {
namespace {

struct TrainOptions {
  std::string config;
  std::vector<std::string> overrides;
  bool resume = false, overwrite = false, verbose = false;
  dist::WorldOptions world;
};

int train(const TrainOptions& options, dist::World& world) {
  run::TrainRequest request;
  world.together([&] { request.config = run::load_run_config(options.config, options.overrides); });
  request.resume = options.resume;
  request.overwrite = options.overwrite;
  request.verbose = options.verbose;
  const run::TrainResult result = run::run_training(request, world);
  if (!world.leads()) return result.signal != 0 ? 128 + result.signal : 0;

  const std::string& folder = request.config.output.path;
  if (result.signal != 0) {
    fmt::print(stderr, "stopped by signal {} ({}) after step {}; everything is saved in {}: add --resume to go on\n",
               result.signal, strsignal(result.signal), result.step, folder);
    return 128 + result.signal;  // as a shell reports a process that a signal ended
  }
  if (!result.loss) {
    fmt::print("{} is at step {} already, and train.steps is {}: raise it to go on\n", folder, result.step,
               request.config.train.steps);
    return 0;
  }
  fmt::print("trained {} steps, loss {:.4f}", result.step, *result.loss);
  if (std::isfinite(result.validation_loss)) {
    fmt::print(", validation loss {:.4f}, perplexity {:.2f}", result.validation_loss, std::exp(result.validation_loss));
  }
  fmt::print("; peak memory {:.0f} MB; {}\n", static_cast<double>(process_memory().peak) * 1e-6, folder);
  std::fflush(stdout);
  fmt::print(stderr, "next: llmz generate {} --prompt \"...\"\n", folder);
  return 0;
}

}  // namespace

Command add_train(CLI::App& app) {
  auto options = std::make_shared<TrainOptions>();
  CLI::App* parser = app.add_subcommand("train", "Train a model as a JSON file says");
  parser->add_option("CONFIG", options->config, "JSON file; docs/config.md lists its keys")->required();
  add_set_option(*parser, options->overrides);
  auto* resume = parser->add_flag("--resume", options->resume,
                                  "Go on from the newest checkpoint in output.path, or start when there is none");
  parser->add_flag("--overwrite", options->overwrite, "Remove an earlier run in output.path first")->excludes(resume);
  parser->add_flag("-v,--verbose", options->verbose,
                   "Print every key of the configuration first, not only what differs from the defaults");
  add_rank_options(*parser, options->world);
  set_example(*parser,
              "llmz train configs/quickstart.json --set train.steps=200 --set output.path=out/try\n"
              "  mpirun -np 2 llmz train configs/quickstart.json");
  return rank_command(parser, options, train);
}

}  // namespace llmz::cli
