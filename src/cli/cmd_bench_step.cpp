#include <algorithm>
#include <nlohmann/json.hpp>

#include "llmz/core/error.h"
#include "llmz/core/system.h"
#include "llmz/engine/engine.h"
#include "llmz/ops/threads.h"
#include "llmz/report/bench.h"
#include "llmz/report/step_runner.h"
#include "llmz/run/config_io.h"
#include "llmz/run/placement.h"
#include "src/cli/commands.h"

namespace llmz::cli {
namespace {

using namespace report;

struct BenchStepOptions {
  std::string config, model = "llama-60m";
  std::vector<std::string> overrides;
  int64_t micro_batch = 0, sequence = 0, repeat = 5, threads = 0;  // 0: as the configuration says
  bool json = false;
};

struct StepReport {
  std::string architecture, where, yardstick;
  int64_t micro_batch = 0, sequence = 0, parameters = 0, matmul_parameters = 0;
  Timing begin = {}, micro = {}, update = {}, whole = {};
  double peak = 0;  // median FLOP/s of the yardstick, measured between the steps
  double peak_low = 0, peak_high = 0;
  double attention_flops = 0;  // per token, forward and backward
  double executed_flops = 0;   // per token, all products that the ops ran, recomputation included
  size_t planned = 0, allocated = 0, loaded = 0, resident = 0;  ///< loaded: resident before there was a model

  double tokens() const { return static_cast<double>(micro_batch * sequence); }
  double flops(int64_t counted_parameters) const {
    return 6.0 * static_cast<double>(counted_parameters) + attention_flops;
  }
  double speed(double flops_per_token) const { return flops_per_token * tokens() / whole.median; }
};

run::RunConfig load_config(const BenchStepOptions& o) {
  std::vector<std::string> overrides;
  if (o.micro_batch > 0) {
    overrides.push_back(fmt::format("train.micro_batch={}", o.micro_batch));
    overrides.push_back(fmt::format("train.global_batch={}", o.micro_batch));
  }
  if (o.sequence > 0) overrides.push_back(fmt::format("train.sequence={}", o.sequence));
  if (o.threads > 0) overrides.push_back(fmt::format("train.threads={}", o.threads));
  overrides.insert(overrides.end(), o.overrides.begin(), o.overrides.end());
  if (!o.config.empty()) return run::load_run_config(o.config, overrides);
  const nlohmann::json json = {{"model", o.model}};
  return run::parse_run_config(json.dump(), "--model", overrides);
}

/// Multiply-adds of a causal attention as two operations each: in forward 2 products of a query with the (S+1)/2 keys
/// that it sees on average, in backward twice that.
double attention_flops(const model::ModelConfig& model, int64_t sequence) {
  const auto width = static_cast<double>(model.heads * model.head_dim());
  const double forward = 2 * 2 * width * static_cast<double>(sequence + 1) / 2;
  return 3 * forward * static_cast<double>(model.layers);
}

StepReport measure(const run::RunConfig& config, int64_t repeat) {
  const engine::EngineOptions options = run::engine_options(config);
  StepReport report;
  report.loaded = static_cast<size_t>(process_memory().resident);
  report.architecture = config.model.architecture;
  report.micro_batch = options.micro_batch;
  report.sequence = options.sequence;
  report.planned = engine::Engine::plan(options).arena_bytes;
  const run::Placement placement{options.device, options.build.precision, options.tf32};
  report.where = describe(placement);
  report.yardstick = peak_name(placement);
  // On a GPU before the engine takes its memory; on the CPU between the steps, since its speed varies.
  std::vector<double> peaks;
  if (placement.device.type == DeviceType::cuda) peaks.push_back(matmul_peak(placement));
  engine::Engine engine(options);
  report.allocated = engine.memory_plan().arena_bytes;
  engine.initialise(config.train.seed);
  report.parameters = engine.model().parameter_count();
  report.matmul_parameters = engine.model().matmul_parameter_count();

  StepRunner runner(engine, config);
  StepTimes warm_up, times;
  engine.exec().flops = 0;
  runner.run(warm_up);
  report.executed_flops = engine.exec().flops / report.tokens();
  report.attention_flops = attention_flops(config.model, options.sequence);
  report.resident = static_cast<size_t>(process_memory().peak);  // before the yardstick's own 48 MB

  for (int64_t i = 0; i < repeat; ++i) {
    runner.run(times);
    if (placement.device.type == DeviceType::cpu) peaks.push_back(matmul_peak(placement));
  }
  report.begin = timing_of(times.begin);
  report.micro = timing_of(times.micro);
  report.update = timing_of(times.update);
  report.whole = timing_of(times.whole);
  report.peak = median_of(peaks);
  report.peak_low = *std::min_element(peaks.begin(), peaks.end());
  report.peak_high = *std::max_element(peaks.begin(), peaks.end());
  return report;
}

nlohmann::ordered_json to_json(const StepReport& r) {
  const auto timing = [](const Timing& t) { return nlohmann::ordered_json{{"median", t.median}, {"best", t.best}}; };
  const auto counting = [&](double flops) {
    return nlohmann::ordered_json{
        {"flops_per_token", flops}, {"gflops", r.speed(flops) * 1e-9}, {"fraction_of_peak", r.speed(flops) / r.peak}};
  };
  return {{"architecture", r.architecture},
          {"micro_batch", r.micro_batch},
          {"sequence", r.sequence},
          {"threads", ops::threads()},
          {"where", r.where},
          {"parameters", r.parameters},
          {"matmul_parameters", r.matmul_parameters},
          {"begin_step_seconds", timing(r.begin)},
          {"micro_step_seconds", timing(r.micro)},
          {"update_seconds", timing(r.update)},
          {"step_seconds", timing(r.whole)},
          {"tokens_per_second", r.tokens() / r.whole.median},
          {"peak_gflops", {{"median", r.peak * 1e-9}, {"lowest", r.peak_low * 1e-9}, {"highest", r.peak_high * 1e-9}}},
          {"all_parameters", counting(r.flops(r.parameters))},
          {"matmul_parameters_only", counting(r.flops(r.matmul_parameters))},
          {"executed", counting(r.executed_flops)},
          {"planned_bytes", r.planned},
          {"allocated_bytes", r.allocated},
          {"loaded_bytes", r.loaded},
          {"peak_resident_bytes", r.resident}};
}

void print_report(const StepReport& r) {
  fmt::print("{}, {:.2f} M parameters ({:.2f} M in matrix products), {} x {} tokens, {}\n\n", r.architecture,
             static_cast<double>(r.parameters) * 1e-6, static_cast<double>(r.matmul_parameters) * 1e-6, r.micro_batch,
             r.sequence, r.where);
  fmt::print("{:<12}{:>14}{:>14}\n", "", "median s", "best s");
  const auto row = [](const char* name, const Timing& t) {
    fmt::print("{:<12}{:>14.4f}{:>14.4f}\n", name, t.median, t.best);
  };
  row("begin_step", r.begin);
  row("micro_step", r.micro);
  row("update", r.update);
  row("whole step", r.whole);
  fmt::print("\n{:.0f} tokens/s\n", r.tokens() / r.whole.median);
  fmt::print("{} product between the steps: {:.1f} GFLOP/s (from {:.1f} to {:.1f})\n\n", r.yardstick, r.peak * 1e-9,
             r.peak_low * 1e-9, r.peak_high * 1e-9);
  fmt::print("{:<46}{:>13}{:>10}{:>12}\n", "operations counted", "MFLOP/token", "GFLOP/s", "of it");
  const auto counting = [&](const char* name, double flops) {
    fmt::print("{:<46}{:>13.1f}{:>10.1f}{:>10.1f} %\n", name, flops * 1e-6, r.speed(flops) * 1e-9,
               100 * r.speed(flops) / r.peak);
  };
  counting("6 x all parameters + attention", r.flops(r.parameters));
  counting("6 x parameters in matrix products + attention", r.flops(r.matmul_parameters));
  counting("as executed, recomputation included", r.executed_flops);
  fmt::print(
      "\nplanned {} bytes, allocated {} bytes, peak resident {} bytes ({:+.1f} MB over the plan; {:.1f} MB "
      "when the program began)\n",
      r.planned, r.allocated, r.resident, (static_cast<double>(r.resident) - static_cast<double>(r.planned)) * 1e-6,
      static_cast<double>(r.loaded) * 1e-6);
}

int bench_step(const BenchStepOptions& o) {
  const run::RunConfig config = load_config(o);
  run::use_threads(config.train.threads);
  const StepReport report = measure(config, o.repeat);
  if (o.json) {
    fmt::print("{}\n", to_json(report).dump(2));
  } else {
    print_report(report);
  }
  return 0;
}

}  // namespace

Command add_bench_step(CLI::App& bench) {
  auto options = std::make_shared<BenchStepOptions>();
  CLI::App* parser = bench.add_subcommand("step", "Whole training steps of a model, on made-up tokens");
  auto* config = parser->add_option("--config", options->config, "JSON file as for `train`");
  parser
      ->add_option("--model", options->model, "Name of a built-in model or of one in ./models, or a model's JSON file")
      ->excludes(config)
      ->capture_default_str();
  parser->add_option("--micro-batch", options->micro_batch, "Windows in a step; else as configured")
      ->check(at_least(1));
  parser->add_option("--sequence", options->sequence, "Tokens in a window; else as configured")->check(at_least(1));
  parser->add_option("--repeat", options->repeat, "Steps measured, after one that is not")
      ->check(at_least(1))
      ->capture_default_str();
  parser->add_option("--threads", options->threads, "CPU threads; 0 = all")->check(at_least(0));
  add_set_option(*parser, options->overrides);
  parser->add_flag("--json", options->json, "Print JSON");
  set_example(*parser, "llmz bench step --model llama-60m --micro-batch 8 --sequence 256 --repeat 5");
  return {parser, [options] { return bench_step(*options); }};
}

}  // namespace llmz::cli
