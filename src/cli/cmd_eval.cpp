#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "llmz/io/files.h"
#include "llmz/run/checkpoint.h"
#include "llmz/run/evaluate.h"
#include "llmz/run/placement.h"
#include "src/cli/commands.h"
#include "src/cli/ranks.h"

namespace llmz::cli {
namespace {

struct EvalOptions {
  std::string checkpoint, device = "auto";
  data::Split split = data::Split::validation;
  std::optional<run::Compute> precision;
  std::vector<std::string> data;
  int64_t stride = 0, sequence = 0, batch = 8, max_batches = 0, threads = 0;
  bool json = false;
  dist::WorldOptions world;
};

/// What is evaluated on what.
struct Subject {
  run::CheckpointHeader header;
  std::optional<data::Dataset> dataset;
};

void check_tokenizer(const run::CheckpointHeader& header, const data::Dataset& dataset) {
  const bool known = header.tokenizer != nullptr && dataset.tokenizer_hash() != 0;
  check(
      !known || header.tokenizer->hash() == dataset.tokenizer_hash(),
      "these shards were made with another tokenizer than the model's: prepare the text again with `llmz data prepare "
      "--tokenizer {}`",
      header.folder.string());
}

/// Every rank reads the same by itself.
Subject open_subject(const EvalOptions& options, dist::World& world) {
  Subject subject;
  world.together([&] {
    subject.header = run::open_model(options.checkpoint);
    subject.dataset = data::Dataset::open(options.data, options.split);
    data::check_vocabulary(*subject.dataset, subject.header.model.vocab_size);
    check_tokenizer(subject.header, *subject.dataset);
  });
  if (world.size() == 1) return subject;
  const io::FileDigest weights = io::digest_file(subject.header.folder / "model.safetensors");
  world.check_same("the checkpoint", fmt::format("{} {}", weights.bytes, weights.crc32));
  const data::Dataset& data = *subject.dataset;
  world.check_same("the text", fmt::format("{} {}", data.tokens(), data.tokenizer_hash()));
  return subject;
}

engine::EngineOptions engine_for(const EvalOptions& options, const run::CheckpointHeader& header, Device device) {
  const run::Placement placement = run::place(device, options.precision, header.run);
  engine::EngineOptions engine_options{.model = header.model};
  engine_options.build.precision = placement.precision;
  engine_options.device = placement.device;
  engine_options.tf32 = placement.tf32;
  const int64_t trained = header.run ? header.run->train.sequence : header.model.context;
  engine_options.sequence = options.sequence > 0 ? options.sequence : trained;
  check(engine_options.sequence <= header.model.context, "--sequence {} exceeds the model's context of {}",
        engine_options.sequence, header.model.context);
  engine_options.micro_batch = options.batch;
  engine_options.training = false;
  return engine_options;
}

int evaluate(const EvalOptions& options, dist::World& world) {
  const Subject subject = open_subject(options, world);
  const auto& header = subject.header;
  const Device device = dist::assign_device(world, options.device);
  run::use_threads(options.threads, dist::fair_threads(world));
  engine::EngineOptions engine_options;
  world.together([&] { engine_options = engine_for(options, header, device); });
  engine::Engine engine(engine_options);
  run::load_weights(header.folder, engine.model(), engine.memory());

  const run::Evaluation e = run::evaluate(engine, *subject.dataset, options.stride, options.max_batches, &world);
  if (!world.leads()) return 0;
  if (options.json) {
    nlohmann::ordered_json json = {{"checkpoint", header.folder.string()},
                                   {"loss", e.loss},
                                   {"perplexity", e.perplexity},
                                   {"bits_per_byte", nullptr},
                                   {"tokens", e.tokens},
                                   {"sequence", engine_options.sequence},
                                   {"stride", options.stride > 0 ? options.stride : engine_options.sequence}};
    if (e.bits_per_byte > 0) json["bits_per_byte"] = e.bits_per_byte;
    fmt::print("{}\n", json.dump(2));
    return 0;
  }
  fmt::print("loss {:.4f} nats a token, perplexity {:.3f}", e.loss, e.perplexity);
  if (e.bits_per_byte > 0) fmt::print(", {:.4f} bits a byte", e.bits_per_byte);
  fmt::print(" over {} tokens in {:.1f} s; {}\n", e.tokens, e.seconds, header.folder.string());
  return 0;
}

}  // namespace

Command add_eval(CLI::App& app) {
  auto options = std::make_shared<EvalOptions>();
  CLI::App* parser = app.add_subcommand("eval", "Loss, perplexity and bits per byte of a checkpoint");
  parser->add_option("CHECKPOINT", options->checkpoint, "Checkpoint, run folder, or Hugging Face folder")->required();
  parser->add_option("--data", options->data, "Prepared folder, shard files or patterns")->required();
  add_choice(*parser, "--split", options->split, data::splits(), "train or val, of a prepared folder");
  parser->add_option("--sequence", options->sequence, "Tokens in a window; 0 = as trained")->check(at_least(0));
  parser
      ->add_option("--stride", options->stride,
                   "Tokens between windows; less than --sequence gives each token more context; 0 = no overlap")
      ->check(at_least(0));
  parser->add_option("--batch", options->batch, "Windows at once, of each rank")
      ->check(at_least(1))
      ->capture_default_str();
  parser->add_option("--max-batches", options->max_batches, "Score only so many batches, evenly spread; 0 = all")
      ->check(at_least(0));
  add_placement(*parser, options->device, options->precision);
  parser->add_option("--threads", options->threads, "CPU threads; 0 = all, or a rank's share of them")
      ->check(at_least(0));
  parser->add_flag("--json", options->json, "Print JSON");
  add_rank_options(*parser, options->world);
  set_example(*parser,
              "llmz eval out/run/checkpoints/best --data data/bible --stride 64\n"
              "  mpirun -np 2 llmz eval out/run --data data/bible");
  return rank_command(parser, options, evaluate);
}

}  // namespace llmz::cli
