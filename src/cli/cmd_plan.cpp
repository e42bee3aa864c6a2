#include <algorithm>
#include <memory>

#include "llmz/core/system.h"
#include "llmz/data/loader.h"
#include "llmz/engine/plan_report.h"
#include "llmz/model/model.h"
#include "llmz/report/plan_compare.h"
#include "llmz/run/config_io.h"
#include "llmz/run/placement.h"
#include "llmz/run/presets.h"
#include "src/cli/commands.h"

namespace llmz::cli {
namespace {

constexpr int kMostRanks = 1'000'000;

/// Whose count of what is stored.
enum class Accounting : uint8_t { llmz, paper };

const config::Names<Accounting>& accountings() {
  static const config::Names<Accounting> names = {{"llmz", Accounting::llmz}, {"paper", Accounting::paper}};
  return names;
}

struct PlanOptions {
  std::string config, show;
  Accounting accounting = Accounting::llmz;
  std::vector<std::string> overrides;
  int ranks = 1;
  bool json = false, verbose = false, compare = false, presets = false;
};

int list_presets() {
  for (const run::Preset& p : run::presets()) fmt::print("{:<12}  {}\n", p.name, p.meaning);
  return 0;
}

int show_preset(const std::string& name) {
  const run::Preset* preset = run::find_preset(name);
  check(preset != nullptr, "--show: preset \"{}\" is unknown; known: {}", name, fmt::join(run::preset_names(), ", "));
  fmt::print("{}", preset->json);
  return 0;
}

/// Whose memory a plan tells, where there are several.
std::string among(const engine::RankPlace& place) {
  return place.size == 1 ? "" : fmt::format("; rank {} of {}, no other takes more", place.rank, place.size);
}

/// Likewise of several methods, each of its own rank.
std::string among(const std::vector<report::MethodPlan>& plans) {
  const report::MethodPlan& first = plans.front();
  const bool same = std::all_of(plans.begin(), plans.end(), [&](auto& plan) { return plan.rank == first.rank; });
  return same ? among({first.rank, first.ranks}) : fmt::format("; of {} ranks the one that takes most", first.ranks);
}

int compare(const run::RunConfig& config, const PlanOptions& options) {
  if (options.accounting == Accounting::paper) {
    check(!options.json, "--accounting paper is a table for people; leave --json out");
    check(options.ranks == 1, "--accounting paper counts what any one rank stores; leave --ranks out");
    fmt::print("{}", report::paper_table(report::paper_accounting(config, run::preset_names()), config));
    return 0;
  }
  const auto plans = report::compare_presets(config, run::preset_names(), options.ranks);
  if (options.json) {
    fmt::print("{}\n", report::comparison_json(plans));
  } else {
    fmt::print("{}, micro-batch {} x {} tokens, in {}{}\n\n{}", config.model.architecture, config.train.micro_batch,
               config.train.sequence, run::arithmetic(run::engine_options(config)), among(plans),
               report::comparison_table(plans));
  }
  return 0;
}

int plan_one(const run::RunConfig& config, const PlanOptions& options) {
  engine::EngineOptions engine =
      run::engine_options(config, device_from_name(config.train.device), {.rank = 0, .size = options.ranks});
  engine.place.rank = engine::Engine::fullest_rank(engine);
  const MemoryPlan plan = engine::Engine::plan(engine);
  const engine::StepTraffic traffic = engine::Engine::traffic_per_step(engine);
  if (options.json) {
    fmt::print("{}\n", engine::plan_json(plan, options.ranks, traffic));
    return 0;
  }
  const double tokens = static_cast<double>(engine.micro_batch * engine.sequence);
  fmt::print("{}, micro-batch {} x {} tokens, in {}; {:.1f} MFLOP a token{}\n{}", config.model.architecture,
             engine.micro_batch, engine.sequence, run::arithmetic(engine),
             engine::Engine::flops_per_micro_step(engine) / tokens * 1e-6, among(engine.place),
             engine::plan_table(plan));
  if (options.ranks > 1) fmt::print("{}", engine::traffic_table(traffic, options.ranks));
  if (options.verbose) fmt::print("{}", engine::plan_listing(plan));
  return 0;
}

int plan(const PlanOptions& options) {
  if (options.presets) return list_presets();
  if (!options.show.empty()) return show_preset(options.show);
  check(!options.config.empty(),
        "CONFIG is missing: name a JSON file as for `train` (only --show and --presets do without)");
  const run::RunConfig config = run::load_run_config(options.config, options.overrides);
  data::micro_steps(config.train.global_batch, config.train.micro_batch, options.ranks);  // can they share a step?
  run::use_threads(config.train.threads);  // some workspaces grow with them
  return options.compare || options.accounting == Accounting::paper ? compare(config, options)
                                                                    : plan_one(config, options);
}

}  // namespace

Command add_plan(CLI::App& app) {
  auto options = std::make_shared<PlanOptions>();
  CLI::App* parser =
      app.add_subcommand("plan", "Print the memory that `train` would allocate, to the byte, without allocating it");
  parser->add_option("CONFIG", options->config, "JSON file as for `train`");
  add_set_option(*parser, options->overrides);
  parser->add_option("--ranks", options->ranks, "Processes of the run: the memory of one of them, and what they send")
      ->check(between(1, kMostRanks))
      ->capture_default_str();
  parser->add_flag("--compare", options->compare,
                   "One row for each preset, in the place of the configuration's method");
  add_choice(*parser, "--accounting", options->accounting, accountings(),
             "`paper`: linear layers' inputs as the papers count them");
  parser->add_flag("--presets", options->presets, "List the presets");
  parser->add_option("--show", options->show, "Print a preset as JSON")->type_name("PRESET");
  parser->add_flag("--json", options->json, "Bytes by category as JSON");
  parser->add_flag("-v,--verbose", options->verbose, "List every buffer with its place and life");
  set_example(*parser,
              "llmz plan configs/llama-1b-c4.json --set train.micro_batch=4 --compare\n"
              "  llmz plan configs/llama-60m-c4.json --ranks 8 --set distributed.zero_stage=1");
  return {parser, [options] { return plan(*options); }};
}

}  // namespace llmz::cli
