#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "src/run/json_lines.h"

namespace llmz::run {

/// What is known after a step.
struct StepMetrics {
  int64_t step = 0;  ///< 1-based: steps done
  double loss = 0;   ///< mean over the step's tokens, nats
  double lr = 0;
  double grad_norm = 0;  ///< before clipping
  int64_t tokens = 0;    ///< seen since the beginning of the run
  double seconds = 0;    ///< of this step
  double tokens_per_second = 0;
  double matmul_fraction = 0;  ///< of the machine's measured matmul speed
  size_t resident_bytes = 0;
  // Of several ranks; of this one:
  int ranks = 1;
  double sent_bytes = 0;      ///< in this step, as Traffic::sent counts
  double seconds_waited = 0;  ///< for other ranks, of `seconds`; on a GPU not known and 0
};

/// `metrics.jsonl` of a run folder: one JSON object a line, `loss` lines for steps and `validation_loss` lines for
/// validations. Numbers are written so that they read back bit for bit.
class MetricsLog {
 public:
  MetricsLog(const std::filesystem::path& file, int64_t last_step) : lines_(file, last_step) {}

  void write(const StepMetrics& metrics);
  void write_validation(int64_t step, double loss);
  /// Waits until every line is on the disk.
  void sync() { lines_.sync(); }

 private:
  JsonLines lines_;
};

/// The live line on standard error: rewritten in place on a terminal, a plain line every `every` steps otherwise.
class Progress {
 public:
  Progress(int64_t total_steps, int64_t first_step, int64_t every);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void step(const StepMetrics& metrics);
  /// A line of its own above the live one.
  void note(const std::string& text);

 private:
  std::string line(const StepMetrics& metrics) const;
  int64_t total_, first_, every_;
  bool terminal_;
  size_t width_ = 0;         ///< characters of the live line on screen
  double seconds_per_step_;  ///< smoothed
};

}  // namespace llmz::run
