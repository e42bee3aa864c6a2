#pragma once

#include <cstdint>
#include <span>

#include "llmz/data/dataset.h"

namespace llmz::data {

/// A dataset from its start to its end, for evaluation: every token but the very first is a target exactly once.
///
/// Window w reads the S tokens from w·stride on. stride = S: windows side by side. stride < S: they overlap, and only
/// the targets that no earlier window scored count, so each but those of window 0 has at least S - stride tokens of
/// context. Positions not to be scored, and what lies past the end (inputs 0), have target -1.
///
/// A pure function of the window numbers: ranks take turns by batch index. The dataset must outlive this.
class EvalWindows {
 public:
  /// 1 ≤ stride ≤ S; 0 means S. Throws Error otherwise, and for a dataset of fewer than two tokens.
  EvalWindows(const Dataset& dataset, int64_t sequence_length, int64_t micro_batch, int64_t stride = 0);

  int64_t windows() const { return windows_; }
  int64_t batches() const { return (windows_ + micro_batch_ - 1) / micro_batch_; }
  int64_t scored_tokens() const { return dataset_.tokens() - 1; }  ///< over all batches

  /// tokens, targets: [B, S]; row r is window index·B + r, empty past the last. Returns how many targets are not -1.
  int64_t batch(int64_t index, std::span<int32_t> tokens, std::span<int32_t> targets) const;

 private:
  int64_t fill_window(int64_t window, std::span<int32_t> tokens, std::span<int32_t> targets) const;
  const Dataset& dataset_;
  int64_t sequence_length_, micro_batch_, stride_, windows_;
};

}  // namespace llmz::data
