#include <memory>

#include "llmz/model/model.h"
#include "llmz/train/config_io.h"
#include "llmz/train/plan_report.h"
#include "llmz/train/trainer.h"
#include "src/cli/commands.h"

namespace llmz::cli {
namespace {

struct Options {
  std::string config;
  std::vector<std::string> overrides;
  bool json = false, verbose = false;
};

int plan(const Options& options) {
  const train::RunConfig config = train::load_run_config(options.config, options.overrides);
  train::use_threads(config.train.threads);  // some workspaces grow with them
  const train::EngineOptions engine = train::engine_options(config);
  const MemoryPlan plan = train::Engine::plan(engine);
  if (options.json) {
    fmt::print("{}\n", train::plan_json(plan));
    return 0;
  }
  const double tokens = static_cast<double>(engine.micro_batch * engine.sequence);
  fmt::print("{}, micro-batch {} x {} tokens; {:.1f} MFLOP a token\n{}", config.model.architecture, engine.micro_batch,
             engine.sequence, train::Engine::flops_per_micro_step(engine) / tokens * 1e-6, train::plan_table(plan));
  if (options.verbose) fmt::print("{}", train::plan_listing(plan));
  return 0;
}

}  // namespace

Command add_plan(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* parser =
      app.add_subcommand("plan", "Print the memory that `train` would allocate, to the byte, without allocating it");
  parser->add_option("CONFIG", options->config, "JSON file as for `train`")->required();
  add_set_option(*parser, options->overrides);
  parser->add_flag("--json", options->json, "Bytes by category as JSON");
  parser->add_flag("-v,--verbose", options->verbose, "List every buffer with its place and life");
  set_example(*parser, "llmz plan configs/llama-1b-c4.json --set train.micro_batch=4");
  return {parser, [options] { return plan(*options); }};
}

}  // namespace llmz::cli
