#include <cstdio>
#include <memory>

#include "llmz/run/generate.h"
#include "llmz/run/placement.h"
#include "src/cli/commands.h"

namespace llmz::cli {
namespace {

struct GenerateOptions {
  std::string checkpoint, prompt;
  std::string device = "auto";
  std::optional<run::Compute> precision;
  int64_t tokens = 100, threads = 0;
  run::SamplingOptions sampling;
};

/// Prints text as it grows; the end of a character that is still incomplete waits for its other bytes.
class TextStream {
 public:
  explicit TextStream(const text::Tokenizer& tokenizer, std::vector<int32_t> ids)
      : tokenizer_(tokenizer), ids_(std::move(ids)) {
    show();
  }
  void add(int32_t id) {
    ids_.push_back(id);
    show();
  }
  void finish() {
    const std::string text = tokenizer_.decode(ids_);
    std::fwrite(text.data() + shown_, 1, text.size() - shown_, stdout);
    std::fputc('\n', stdout);
  }

 private:
  void show() {
    const std::string text = tokenizer_.decode(ids_);
    const size_t end = whole_characters(text);
    if (end <= shown_) return;
    std::fwrite(text.data() + shown_, 1, end - shown_, stdout);
    std::fflush(stdout);
    shown_ = end;
  }
  /// Length of `text` without a cut UTF-8 character, or a replacement character that may still change, at its end.
  static size_t whole_characters(const std::string& text) {
    size_t end = text.size();
    while (end >= 3 && text.compare(end - 3, 3, "\xEF\xBF\xBD") == 0) end -= 3;
    for (size_t back = 1; back <= 3 && back <= end; ++back) {
      const auto byte = static_cast<unsigned char>(text[end - back]);
      if (byte < 0x80) break;
      if (byte < 0xC0) continue;
      const size_t length = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : 2;
      return length > back ? end - back : end;
    }
    return end;
  }

  const text::Tokenizer& tokenizer_;
  std::vector<int32_t> ids_;
  size_t shown_ = 0;
};

int generate(const GenerateOptions& options) {
  run::use_threads(options.threads);
  const run::CheckpointHeader header = run::open_model(options.checkpoint);
  check(header.tokenizer != nullptr, "{} holds no tokenizer, so a text prompt cannot be read", header.folder.string());
  check(header.tokenizer->vocab_size() <= header.model.vocab_size,
        "the tokenizer in {} has {} tokens, the model only {}", header.folder.string(), header.tokenizer->vocab_size(),
        header.model.vocab_size);

  std::vector<int32_t> prompt;
  if (const auto bos = header.tokenizer->bos()) prompt.push_back(*bos);
  header.tokenizer->encode(options.prompt, prompt);
  if (prompt.empty() && header.tokenizer->eos()) prompt.push_back(*header.tokenizer->eos());
  run::Generator generator(header, static_cast<int64_t>(prompt.size()), options.tokens,
                           run::place(options.device, options.precision, header.run));
  TextStream stream(*header.tokenizer, prompt);
  const int32_t known = static_cast<int32_t>(header.tokenizer->vocab_size());
  generator.run(prompt, options.sampling, header.tokenizer->eos().value_or(-1), [&](int32_t id) {
    if (id < known) stream.add(id);
    return true;
  });
  stream.finish();
  return 0;
}

}  // namespace

Command add_generate(CLI::App& app) {
  auto options = std::make_shared<GenerateOptions>();
  run::SamplingOptions& sampling = options->sampling;
  CLI::App* parser = app.add_subcommand("generate", "Continue a prompt with a trained model");
  parser->add_option("CHECKPOINT", options->checkpoint, "Checkpoint, run folder, or Hugging Face folder")->required();
  parser->add_option("--prompt", options->prompt, "Text to continue; empty starts a document");
  parser->add_option("--tokens", options->tokens, "New tokens at most")->check(at_least(1))->capture_default_str();
  parser->add_option("--temperature", sampling.temperature, "Flatter above 1, sharper below; 0 = always the likeliest")
      ->check(at_least(0))
      ->capture_default_str();
  parser->add_option("--top-k", sampling.top_k, "Draw from the k likeliest tokens; 0 = all")
      ->check(at_least(0))
      ->capture_default_str();
  parser->add_option("--top-p", sampling.top_p, "Draw from the likeliest that add up to this probability")
      ->check(between(0.0, 1.0))
      ->capture_default_str();
  parser->add_option("--seed", sampling.seed, "The same seed draws the same text")->capture_default_str();
  add_placement(*parser, options->device, options->precision);
  parser->add_option("--threads", options->threads, "CPU threads; 0 = all")->check(at_least(0));
  set_example(*parser, "llmz generate out/run --prompt \"In the beginning\" --tokens 200 --temperature 0.7");
  return {parser, [options] { return generate(*options); }};
}

}  // namespace llmz::cli
