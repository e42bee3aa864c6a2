#include <nlohmann/json.hpp>

#include "llmz/ops/matmul.h"
#include "llmz/ops/threads.h"
#include "llmz/report/bench.h"
#include "llmz/run/placement.h"
#include "src/cli/commands.h"

namespace llmz::cli {
namespace {

using namespace report;

struct BenchMatmulOptions {
  int64_t tokens = 2048, hidden = 512, intermediate = 1376, vocabulary = 32000, loss_chunk = 1024, threads = 0;
  double seconds = 0.5;
  std::string device = "auto";
  std::optional<run::Compute> precision;
  bool json = false;
};

/// y[T,out] = x[T,in]·Wᵀ of one linear layer.
struct Linear {
  std::string name;
  int64_t tokens, in, out;
};

enum class Product { forward, input_gradient, weight_gradient };

/// C = op(A)·op(B), stored as the engine stores them: W [out,in], a gradient like what it belongs to.
BenchCase product(const Linear& l, const std::string& name, Product which) {
  return {l.name + name, 0, [=](BenchExec& exec) {
            const Shape x{l.tokens, l.in}, y{l.tokens, l.out}, w{l.out, l.in};
            ops::MatmulArgs args;
            if (which == Product::forward) {
              args = {zero_tensor(exec, y), normal_tensor(exec, x), normal_tensor(exec, w)};
              args.transpose_b = true;
            } else if (which == Product::input_gradient) {
              args = {zero_tensor(exec, x), normal_tensor(exec, y), normal_tensor(exec, w)};
            } else {
              args = {f32_tensor(exec, w), normal_tensor(exec, y), normal_tensor(exec, x)};
              args.transpose_a = true;
              args.accumulate = true;
            }
            return [args](Exec& e) { ops::matmul(e, args); };
          }};
}

std::vector<BenchCase> products(const Linear& l) {
  return {product(l, " forward", Product::forward), product(l, " input gradient", Product::input_gradient),
          product(l, " weight gradient", Product::weight_gradient)};
}

int bench_matmul(const BenchMatmulOptions& o) {
  run::use_threads(o.threads);
  const run::Placement placement = run::place(o.device, o.precision, {});
  const std::vector<Linear> linears = {{"query, key, value", o.tokens, o.hidden, 3 * o.hidden},
                                       {"attention out", o.tokens, o.hidden, o.hidden},
                                       {"gate, up", o.tokens, o.hidden, 2 * o.intermediate},
                                       {"down", o.tokens, o.intermediate, o.hidden},
                                       {"head", std::min(o.tokens, o.loss_chunk), o.hidden, o.vocabulary}};
  std::vector<std::pair<Linear, BenchResult>> results;
  std::vector<double> peaks = {matmul_peak(placement)};
  for (const Linear& linear : linears) {
    for (const BenchCase& c : products(linear)) results.emplace_back(linear, run_case(c, o.seconds, placement));
    peaks.push_back(matmul_peak(placement));
  }
  const double peak = median_of(peaks);

  nlohmann::ordered_json json = {{"threads", ops::threads()},
                                 {"where", describe(placement)},
                                 {"peak_gflops", peak * 1e-9},
                                 {"products", nlohmann::ordered_json::array()}};
  if (!o.json) fmt::print("{}, {}: {:.1f} GFLOP/s\n\n", peak_name(placement), describe(placement), peak * 1e-9);
  if (!o.json)
    fmt::print("{:<34}{:>7}{:>7}{:>7}{:>11}{:>10}{:>11}\n", "", "tokens", "in", "out", "ms", "GFLOP/s", "of it");
  for (const auto& [linear, r] : results) {
    const double speed = r.flops / r.timing.median;
    if (o.json) {
      json["products"].push_back({{"name", r.name},
                                  {"tokens", linear.tokens},
                                  {"in", linear.in},
                                  {"out", linear.out},
                                  {"seconds_median", r.timing.median},
                                  {"seconds_best", r.timing.best},
                                  {"gflops", speed * 1e-9},
                                  {"fraction_of_peak", speed / peak}});
    } else {
      fmt::print("{:<34}{:>7}{:>7}{:>7}{:>11.3f}{:>10.1f}{:>9.0f} %\n", r.name, linear.tokens, linear.in, linear.out,
                 r.timing.median * 1e3, speed * 1e-9, 100 * speed / peak);
    }
  }
  if (o.json) fmt::print("{}\n", json.dump(2));
  return 0;
}

}  // namespace

Command add_bench_matmul(CLI::App& bench) {
  auto options = std::make_shared<BenchMatmulOptions>();
  CLI::App* parser =
      bench.add_subcommand("matmul", "A 2048 x 2048 x 2048 product, and those of a LLaMA's layers beside it");
  const auto size = [&](const char* name, int64_t& value, const char* meaning) {
    parser->add_option(name, value, meaning)->check(at_least(1))->capture_default_str();
  };
  size("--tokens", options->tokens, "Tokens in a micro-batch");
  size("--hidden", options->hidden, "Width of the model; the default is LLaMA-60M");
  size("--intermediate", options->intermediate, "Width of the MLP");
  size("--vocabulary", options->vocabulary, "Rows of the head");
  size("--loss-chunk", options->loss_chunk, "Tokens that go through the head at once");
  parser->add_option("--seconds", options->seconds, "Time for each product")->check(at_least(0))->capture_default_str();
  add_placement(*parser, options->device, options->precision);
  parser->add_option("--threads", options->threads, "CPU threads; 0 = all")->check(at_least(0));
  parser->add_flag("--json", options->json, "Print JSON");
  set_example(*parser, "llmz bench matmul --hidden 768 --intermediate 2048");
  return {parser, [options] { return bench_matmul(*options); }};
}

}  // namespace llmz::cli
