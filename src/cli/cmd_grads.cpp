#include <memory>

#include "llmz/run/grads.h"
#include "llmz/run/placement.h"
#include "src/cli/commands.h"

namespace llmz::cli {
namespace {

struct GradsOptions {
  std::string checkpoint, tokens, out;
  int64_t rows = 1, sequence = 256, threads = 0;
};

int grads(const GradsOptions& options) {
  run::use_threads(options.threads);
  const auto rows = run::read_token_rows(options.tokens, options.rows, options.sequence);
  const double loss = run::write_gradients(options.checkpoint, rows, options.out);
  fmt::print("loss {:.9g} over {} x {} tokens; gradients in {}\n", loss, rows.size(), rows.front().size() - 1,
             options.out);
  return 0;
}

}  // namespace

Command add_grads(CLI::App& app) {
  auto options = std::make_shared<GradsOptions>();
  CLI::App* parser = app.add_subcommand(
      "grads", "Loss and every parameter's gradient of one batch, for comparison with other programs");
  parser->add_option("CHECKPOINT", options->checkpoint, "Checkpoint, run folder, or Hugging Face folder")->required();
  parser->add_option("--tokens", options->tokens, "JSON [[ids of S+1 tokens], ...], or a token shard")->required();
  parser->add_option("--out", options->out, "safetensors file to write")->required();
  parser->add_option("--rows", options->rows, "Windows taken from a shard")->check(at_least(1))->capture_default_str();
  parser->add_option("--sequence", options->sequence, "Tokens in each window of a shard")
      ->check(at_least(1))
      ->capture_default_str();
  parser->add_option("--threads", options->threads, "CPU threads; 0 = all")->check(at_least(0));
  set_example(*parser, "llmz grads out/run --tokens batch.json --out grads.safetensors");
  return {parser, [options] { return grads(*options); }};
}

}  // namespace llmz::cli
