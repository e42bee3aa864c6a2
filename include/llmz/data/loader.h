#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "llmz/data/dataset.h"
#include "llmz/data/objective.h"
#include "llmz/data/permutation.h"

namespace llmz::data {

struct LoaderOptions {
  uint64_t seed = 0;
  int64_t sequence_length = 0;  ///< S
  int64_t micro_batch = 1;      ///< B: sequences one rank takes at once
  int64_t global_batch = 1;     ///< sequences of one step over all ranks and micro-steps
};

/// Micro-steps of each of `world` ranks in a step: global_batch / (micro_batch · world). Throws Error where that is not
/// whole.
int micro_steps(int64_t global_batch, int64_t micro_batch, int world);

/// Training batches as a pure function of (seed, step, micro index, rank, world): nothing is remembered between calls,
/// so a run starts at any step at once, and a resumed one sees what the undisturbed one would.
///
/// The dataset is cut into windows: window w begins at token w·S and reads as many as the objective makes a sequence
/// from; for next tokens S + 1, so that neighbours share one, and there are (tokens - 1) / S of them. Sample number i
/// of the run, counted from its start, is window P(i / windows, i % windows), where P(e, ·) is epoch e's permutation:
/// each epoch takes every window once, in an order that mixes all shards. A step takes the samples
///
///     i = step · global_batch + g,    g = (micro_index · world + rank) · B + row,
///
/// so ranks and micro-steps share one global batch, and step s has the same samples however many ranks take part.
///
/// Const methods are thread-safe. Dataset and objective must outlive the loader.
class Loader {
 public:
  /// Throws Error for sizes below 1, a global batch that B does not divide, a dataset smaller than one window.
  Loader(const Dataset& dataset, const LoaderOptions& options, const Objective& objective = next_token());

  const LoaderOptions& options() const { return options_; }
  int64_t windows() const { return order_.size(); }
  int micro_steps(int world) const { return data::micro_steps(options_.global_batch, options_.micro_batch, world); }
  /// The window of sample `index` of the run.
  int64_t window_of(int64_t index) const;
  /// How many times the dataset has been gone through at the start of `step`.
  double epochs(int64_t step) const;

  /// tokens, targets: [B, S]. Throws Error for indices out of range or a shard that cannot be read.
  void batch(int64_t step, int micro_index, int rank, int world, std::span<int32_t> tokens,
             std::span<int32_t> targets) const;

 private:
  const Dataset& dataset_;
  const Objective& objective_;
  LoaderOptions options_;
  Permutation order_;
};

/// The batches of one rank in their order, each read by a background thread while the one before is worked on.
class Prefetcher {
 public:
  /// Starts at micro-step 0 of `first_step`. The loader must outlive this.
  Prefetcher(const Loader& loader, int64_t first_step, int rank, int world);
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;
  ~Prefetcher();

  /// tokens, targets: [B, S] of the next micro-step. Rethrows what the loader threw for it.
  void next(std::span<int32_t> tokens, std::span<int32_t> targets);

 private:
  void work();

  const Loader& loader_;
  const int rank_, world_, micro_steps_;
  std::mutex mutex_;  // guards all below
  std::condition_variable changed_;
  std::vector<int32_t> tokens_, targets_;
  std::exception_ptr error_;
  int64_t step_;
  int micro_index_ = 0;
  bool ready_ = false, stop_ = false;
  std::thread thread_;
};

}  // namespace llmz::data
