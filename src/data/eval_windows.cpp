#include "llmz/data/eval_windows.h"

#include <algorithm>

#include "llmz/core/error.h"

namespace llmz::data {

EvalWindows::EvalWindows(const Dataset& dataset, int64_t sequence_length, int64_t micro_batch, int64_t stride)
    : dataset_(dataset),
      sequence_length_(sequence_length),
      micro_batch_(micro_batch),
      stride_(stride == 0 ? sequence_length : stride) {
  check(sequence_length_ > 0 && micro_batch_ > 0, "sequence length {}, micro batch {}: each must be at least 1",
        sequence_length_, micro_batch_);
  check(stride_ > 0 && stride_ <= sequence_length_,
        "an evaluation stride of {} must be from 1 to the sequence length {}", stride_, sequence_length_);
  check(dataset_.tokens() >= 2, "{}: {} tokens, too few to evaluate on", dataset_.shards().front().path().string(),
        dataset_.tokens());
  const int64_t beyond_first = std::max<int64_t>(0, scored_tokens() - sequence_length_);
  windows_ = 1 + (beyond_first + stride_ - 1) / stride_;
}

int64_t EvalWindows::batch(int64_t index, std::span<int32_t> tokens, std::span<int32_t> targets) const {
  const auto length = static_cast<size_t>(sequence_length_);
  const size_t size = static_cast<size_t>(micro_batch_) * length;
  check(index >= 0 && index < batches(), "evaluation batch {} of {}", index, batches());
  check(tokens.size() == size && targets.size() == size, "a batch of {} x {} needs room for {} ids, got {} and {}",
        micro_batch_, sequence_length_, size, tokens.size(), targets.size());
  int64_t scored = 0;
  for (int64_t row = 0; row < micro_batch_; ++row) {
    const size_t at = static_cast<size_t>(row) * length;
    scored += fill_window(index * micro_batch_ + row, tokens.subspan(at, length), targets.subspan(at, length));
  }
  return scored;
}

int64_t EvalWindows::fill_window(int64_t window, std::span<int32_t> tokens, std::span<int32_t> targets) const {
  std::fill(tokens.begin(), tokens.end(), 0);
  std::fill(targets.begin(), targets.end(), -1);
  if (window >= windows_) return 0;
  const int64_t first = window * stride_;
  const int64_t count = std::min(sequence_length_, dataset_.tokens() - 1 - first);  // positions that have a target
  dataset_.read(first, tokens.first(static_cast<size_t>(count)));
  const int64_t scored_before = window == 0 ? 0 : sequence_length_ - stride_;
  const auto fresh = static_cast<size_t>(count - scored_before);
  dataset_.read(first + 1 + scored_before, targets.subspan(static_cast<size_t>(scored_before), fresh));
  return static_cast<int64_t>(fresh);
}

}  // namespace llmz::data
