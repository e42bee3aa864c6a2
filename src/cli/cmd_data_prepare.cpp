#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <memory>

#include "llmz/core/error.h"
#include "llmz/core/system.h"
#include "llmz/data/prepare.h"
#include "src/cli/commands.h"

namespace llmz::cli {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

struct DataPrepareOptions {
  data::PrepareOptions prepare;
  std::string tokenizer;
};

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

/// How far preparation has come, on standard error: a bar that redraws itself on a terminal, now and then a plain line
/// elsewhere.
class ProgressBar {
 public:
  ProgressBar() : terminal_(isatty(STDERR_FILENO) == 1), every_(terminal_ ? 0.1 : 10.0) {}
  ~ProgressBar() { clear(); }
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void update(const data::PrepareProgress& p) {
    const double now = seconds_since(start_);
    if (now < shown_ + every_) return;
    shown_ = now;
    const double part = p.bytes_total == 0 ? 0 : static_cast<double>(p.bytes_read) / static_cast<double>(p.bytes_total);
    const std::string text =
        fmt::format("{:3.0f} %  {:.1f} MB of text, {:.2f} M tokens, {} documents  {:.1f} MB/s  {}", 100 * part,
                    static_cast<double>(p.text_bytes) * 1e-6, static_cast<double>(p.tokens) * 1e-6, p.documents,
                    static_cast<double>(p.text_bytes) * 1e-6 / now,
                    part > 0 ? fmt::format("{:.0f} s left", now * (1 - part) / part) : "");
    if (!terminal_) {
      fmt::print(stderr, "{}\n", text);
      return;
    }
    const size_t filled = static_cast<size_t>(part * kBarWidth);
    const std::string bar = std::string(filled, '#') + std::string(kBarWidth - filled, '.');
    fmt::print(stderr, "\r[{}] {}\033[K", bar, text);
    std::fflush(stderr);
    drawn_ = true;
  }

  void clear() {
    if (drawn_) fmt::print(stderr, "\r\033[K");
    drawn_ = false;
  }

 private:
  static constexpr size_t kBarWidth = 30;
  const bool terminal_;
  const double every_;  // seconds
  const Clock::time_point start_ = Clock::now();
  double shown_ = 0;
  bool drawn_ = false;
};

/// Until `keep` is called, takes back what a failed preparation leaves beside the shards that `data::prepare` removes
/// itself: tokenizer files, and folders that were not there before.
class Leftovers {
 public:
  explicit Leftovers(const fs::path& out) : out_(out) {
    std::error_code ignored;
    for (fs::path p = fs::absolute(out, ignored); !p.empty() && !fs::exists(p, ignored); p = p.parent_path()) {
      made_folders_.push_back(p);
    }
    for (const std::string& name : text::tokenizer_files()) {
      if (!fs::exists(out / name, ignored)) made_files_.push_back(out / name);
    }
  }
  ~Leftovers() {
    if (kept_) return;
    std::error_code ignored;
    for (const fs::path& file : made_files_) fs::remove(file, ignored);
    for (const fs::path& folder : made_folders_) fs::remove(folder, ignored);  // only when it is empty
  }
  Leftovers(const Leftovers&) = delete;
  Leftovers& operator=(const Leftovers&) = delete;
  void keep() { kept_ = true; }

 private:
  fs::path out_;
  std::vector<fs::path> made_files_, made_folders_;
  bool kept_ = false;
};

/// Trains a tokenizer on the training side of the text, as `description` says: "8192".
std::unique_ptr<text::Tokenizer> train_tokenizer(const data::PrepareOptions& options, const std::string& description) {
  const auto training = text::TokenizerTraining::parse(description, fmt::format("--tokenizer train:{}", description));
  std::error_code failed;
  fs::create_directories(options.out, failed);
  check(!failed, "cannot make the output folder {}: {}", options.out.string(), failed.message());
  fmt::print(stderr, "training a {} tokenizer ({}) ...\n", training.kind, description);
  const auto start = Clock::now();
  auto reader = std::make_shared<data::TextReader>(data::training_text(options));
  auto tokenizer = text::train_tokenizer(
      training, [reader](std::string& text) { return reader->next(text); }, options.out);
  fmt::print(stderr, "trained it in {:.1f} s\n", seconds_since(start));
  return tokenizer;
}

std::unique_ptr<text::Tokenizer> tokenizer_for(const DataPrepareOptions& options) {
  constexpr std::string_view kTrain = "train:";
  if (!options.tokenizer.starts_with(kTrain)) return text::load_tokenizer(options.tokenizer);
  return train_tokenizer(options.prepare, options.tokenizer.substr(kTrain.size()));
}

void print_summary(const DataPrepareOptions& options, const data::Manifest& manifest, double seconds) {
  const data::SplitFacts &train = manifest.train, &validation = manifest.validation;
  const auto tokens = static_cast<double>(train.tokens + validation.tokens);
  const auto bytes = static_cast<double>(train.text_bytes + validation.text_bytes);
  fmt::print("{}: {} documents, {} tokens ({} in training, {} in validation: {:.2f} %)\n", options.prepare.out.string(),
             train.documents + validation.documents, train.tokens + validation.tokens, train.tokens, validation.tokens,
             100 * static_cast<double>(validation.tokens) / tokens);
  fmt::print("tokenizer {} with {} tokens, {:.3f} bytes a token; unigram perplexity {:.2f}\n", manifest.tokenizer_kind,
             manifest.vocab_size, bytes / tokens, manifest.unigram_perplexity);
  fmt::print("{} shards, {:.1f} MB of text in {:.1f} s: {:.1f} MB/s\n", train.shards.size() + validation.shards.size(),
             bytes * 1e-6, seconds, bytes * 1e-6 / seconds);
  std::fflush(stdout);
  fmt::print(stderr, "next: llmz train CONFIG --set data.path={} --set model.vocab_size={}\n",
             options.prepare.out.string(), manifest.vocab_size);
}

int prepare(DataPrepareOptions& options) {
  data::PrepareOptions& request = options.prepare;
  if (request.threads == 0) request.threads = cpu_info().threads();
  // `data::prepare` looks too, but a trained tokenizer would be in the folder by then.
  check(request.overwrite || !fs::exists(request.out / data::kManifestName),
        "{}: a prepared dataset is there already; name another folder, or add --overwrite", request.out.string());

  Leftovers leftovers(request.out);
  const auto tokenizer = tokenizer_for(options);
  ProgressBar bar;
  request.progress = [&](const data::PrepareProgress& progress) { bar.update(progress); };
  const auto start = Clock::now();
  const data::Manifest manifest = data::prepare(request, *tokenizer);
  const double seconds = seconds_since(start);
  leftovers.keep();
  bar.clear();
  print_summary(options, manifest, seconds);
  return 0;
}

}  // namespace

Command add_data_prepare(CLI::App& data) {
  auto options = std::make_shared<DataPrepareOptions>();
  data::PrepareOptions& prepare_options = options->prepare;
  CLI::App* parser = data.add_subcommand("prepare", "Tokenize text into the shards that `train` and `eval` read");
  parser
      ->add_option("--input", prepare_options.inputs, fmt::format("Files, folders, patterns: {}", data::text_choices()))
      ->required();
  parser->add_option("--out", prepare_options.out, "Folder to write; made if missing")->required();
  parser->add_option("--tokenizer", options->tokenizer, text::tokenizer_choices())->required();
  parser->add_option("--validation", prepare_options.validation_fraction, "Share of the documents kept for validation")
      ->check(between(0.0, 0.99))
      ->capture_default_str();
  parser->add_option("--validation-input", prepare_options.validation_inputs,
                     "Validation texts, instead of a share of the input");
  add_options(*parser, data::text_fields(), prepare_options.text);
  parser->add_option("--shard-tokens", prepare_options.shard_tokens, "Tokens in a shard")
      ->check(at_least(1))
      ->capture_default_str();
  parser->add_option("--threads", prepare_options.threads, "CPU threads; 0 = all; the shards do not depend on it")
      ->check(at_least(0))
      ->capture_default_str();
  parser->add_option("--seed", prepare_options.seed, "Draws the validation documents")->capture_default_str();
  parser->add_flag("--overwrite", prepare_options.overwrite,
                   "Replace a dataset that is in the folder already; the old one is removed at the start");
  set_example(*parser,
              "llmz data prepare --input books/*.txt --out data/books --tokenizer train:8192 --validation 0.02");
  return {parser, [options] { return prepare(*options); }};
}

}  // namespace llmz::cli
