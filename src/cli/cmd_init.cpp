#include <filesystem>
#include <memory>

#include "llmz/core/error.h"
#include "llmz/io/files.h"
#include "llmz/report/starter.h"
#include "llmz/run/placement.h"
#include "src/cli/commands.h"

namespace llmz::cli {
namespace {

struct Options {
  report::StarterRequest request;
  double memory = 0;
  int64_t threads = 0;
  bool overwrite = false;
};

int init(const Options& options) {
  report::StarterRequest request = options.request;
  const std::filesystem::path file = request.file;
  check(options.overwrite || !std::filesystem::exists(file),
        "{} is there already: choose another name, or add --overwrite to replace it", file.string());
  const std::filesystem::path folder = file.has_parent_path() ? file.parent_path() : ".";
  check(std::filesystem::is_directory(folder), "{}: there is no folder {}", file.string(), folder.string());
  if (request.output.empty()) request.output = "out/" + file.stem().string();
  request.memory = static_cast<int64_t>(options.memory);
  run::use_threads(options.threads);
  const report::Starter starter = report::make_starter(request);
  io::write_text(file, starter.text);

  const run::TrainConfig& t = starter.config.train;
  fmt::print("{}: {:.2f} M parameters, {} steps of {} x {} tokens, {:.2f} GB planned", file.string(),
             static_cast<double>(starter.parameters) * 1e-6, t.steps, t.global_batch, t.sequence,
             static_cast<double>(starter.planned_bytes) * 1e-9);
  if (starter.tokens_per_second > 0) fmt::print(", {:.0f} tokens/s measured", starter.tokens_per_second);
  fmt::print("\n");
  std::fflush(stdout);
  fmt::print(stderr, "next: llmz plan {0}; llmz train {0}\n", file.string());
  return 0;
}

}  // namespace

Command add_init(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* parser = app.add_subcommand("init", "Write a first configuration for a data folder, every key explained");
  parser->add_option("FILE", options->request.file, "JSON file to write")->required();
  parser->add_option("--data", options->request.data, "Folder made by `llmz data prepare`")->required();
  parser->add_option("--memory", options->memory, "What the run may take, such as 8GB; else 9/10 of what is free")
      ->type_name("AMOUNT")
      ->transform(amount({{"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"MiB", 0x1p20}, {"GiB", 0x1p30}}));
  parser
      ->add_option("--time", options->request.seconds,
                   "What training may take, such as 2h; speed is measured. Else as long as the model wants tokens")
      ->type_name("AMOUNT")
      ->transform(amount({{"s", 1}, {"m", 60}, {"min", 60}, {"h", 3600}, {"d", 86400}}));
  parser->add_option("--model", options->request.model,
                     "Name of a model; else the largest that data, memory and time are enough for");
  parser->add_option("--preset", options->request.preset,
                     "Name of a preset; else the most exact that fits with 2048 tokens at once");
  parser->add_option("--device", options->request.device, "auto, cpu, cuda or cuda:1 …; else auto");
  parser->add_option("--threads", options->threads, "CPU threads; 0 = all")->check(at_least(0));
  parser->add_option("--output", options->request.output, "Run folder; else out/ and the file's name");
  parser->add_flag("--overwrite", options->overwrite, "Replace FILE where it is there");
  set_example(*parser, "llmz init --data data/mine --memory 8GB --time 2h mine.json\n  llmz train mine.json");
  return {parser, [options] { return init(*options); }};
}

}  // namespace llmz::cli
