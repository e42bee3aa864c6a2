#include <sentencepiece_trainer.h>

#include <fstream>
#include <unordered_map>

#include "llmz/core/error.h"
#include "llmz/core/random.h"
#include "llmz/io/files.h"
#include "src/text/sentencepiece_model.h"
#include "src/text/tokenizer_files.h"

namespace llmz::text {
namespace {

/// The trainer drops lines above 4192 bytes without a word, so longer ones are cut here.
constexpr size_t kMaxLine = 4096;
/// Seed of the sample that is taken of a text with too many lines: the same for everyone.
constexpr uint64_t kSampleSeed = 0;

/// Uniform sample of at most `capacity` lines of a stream of unknown length (Vitter's algorithm R).
class LineSample {
 public:
  explicit LineSample(uint64_t capacity) : capacity_(capacity), random_(kSampleSeed, Purpose::sampling) {}

  /// Takes the text's lines, long ones in parts.
  void add_text(std::string_view text) {
    while (!text.empty()) {
      const size_t newline = text.find('\n');
      add_line(text.substr(0, newline));
      text.remove_prefix(newline == std::string_view::npos ? text.size() : newline + 1);
    }
  }
  std::vector<std::string> take() { return std::move(lines_); }

 private:
  void add_line(std::string_view line) {
    while (line.size() > kMaxLine) {
      const size_t cut = cut_before(line, kMaxLine);
      add_part(line.substr(0, cut));
      line.remove_prefix(line[cut] == ' ' ? cut + 1 : cut);  // every part is given a leading space anyway
    }
    if (!line.empty()) add_part(line);
  }

  /// Where to end a part of at most `limit` bytes: before a space if there is one, else between two characters.
  static size_t cut_before(std::string_view line, size_t limit) {
    const size_t space = line.rfind(' ', limit);
    if (space != std::string_view::npos && space > 0) return space;
    size_t cut = limit;
    while (cut > limit - 4 && (static_cast<unsigned char>(line[cut]) & 0xc0u) == 0x80u) --cut;
    return cut;
  }

  void add_part(std::string_view part) {
    const uint64_t index = seen_++;
    if (lines_.size() < capacity_) {
      lines_.emplace_back(part);
      return;
    }
    const uint64_t slot = random_.below(index, index + 1);
    if (slot < capacity_) lines_[slot] = part;
  }

  uint64_t capacity_;
  uint64_t seen_ = 0;
  RandomStream random_;
  std::vector<std::string> lines_;
};

/// Hands lines to the trainer and lets go of each once it was read.
class LineIterator final : public sentencepiece::SentenceIterator {
 public:
  explicit LineIterator(std::vector<std::string> lines) : lines_(std::move(lines)) {}
  bool done() const override { return next_ == lines_.size(); }
  void Next() override { lines_[next_++] = std::string(); }
  const std::string& value() const override { return lines_[next_]; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  std::vector<std::string> lines_;
  size_t next_ = 0;
};

std::vector<std::string> read_lines(const SentencePieceTraining& training) {
  LineSample sample(training.max_sentences);
  std::string text;
  if (training.text) {
    while (training.text(text)) sample.add_text(text);
  }
  for (const auto& path : training.files) {
    std::ifstream in(path, std::ios::binary);
    check(in.is_open(), "{}: training text cannot be opened", path.string());
    while (std::getline(in, text)) sample.add_text(text);
    check(!in.bad(), "{}: training text could not be read to its end", path.string());
  }
  return sample.take();
}

/// The settings LLaMA's tokenizer was trained with, as its model file records them.
std::unordered_map<std::string, std::string> llama_settings(const SentencePieceTraining& training) {
  return {{"model_type", "bpe"},
          {"vocab_size", std::to_string(training.vocab_size)},
          {"num_threads", "1"},  // goes into the model file, so it must not depend on the machine
          {"character_coverage", "0.99995"},
          {"normalization_rule_name", "identity"},
          {"remove_extra_whitespaces", "false"},
          {"allow_whitespace_only_pieces", "true"},
          {"byte_fallback", "true"},
          {"split_digits", "true"},
          {"shuffle_input_sentence", "false"},
          {"hard_vocab_limit", "true"},
          {"minloglevel", "4"}};
}

}  // namespace

void train_sentencepiece(const SentencePieceTraining& training) {
  constexpr int64_t kFixedPieces = 3 + 256;
  check(training.vocab_size > kFixedPieces && training.vocab_size <= (int64_t{1} << 30),
        "tokenizer vocabulary of {}: must be more than the {} special and byte tokens, and at most 2^30",
        training.vocab_size, kFixedPieces);
  check(training.max_sentences >= 1, "tokenizer training on at most 0 lines: give at least 1");
  const auto folder = std::filesystem::absolute(training.out_model).parent_path();
  check(std::filesystem::is_directory(folder), "{}: the folder for the tokenizer model does not exist",
        folder.string());
  auto lines = read_lines(training);
  check(!lines.empty(), "tokenizer training: the text is empty");
  const size_t line_count = lines.size();

  LineIterator iterator(std::move(lines));
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(llama_settings(training), &iterator, &model);
  check(status.ok() && !model.empty(),
        "tokenizer training: no vocabulary of {} can be made of these {} lines of text; give more text or another "
        "vocabulary size. SentencePiece says: {}",
        training.vocab_size, line_count, sentencepiece_message(status.ToString()));
  io::write_text(training.out_model, model);
}

}  // namespace llmz::text
