#include "src/engine/gradient_exchange.h"

#include <utility>

#include "llmz/core/error.h"

namespace llmz::engine {
namespace {

constexpr size_t kSmall = size_t{64} << 10;

}  // namespace

GradientExchange::GradientExchange(const std::vector<Parameter*>& parameters, Options options)
    : parameters_(parameters), options_(std::move(options)) {}

void GradientExchange::ready(Communicator& ranks, size_t first, size_t last) {
  for (size_t i = last; i-- > first;) {
    const Reduction part = options_.reduction(i);
    const size_t bytes = parameters_[i]->grad.accumulator().bytes();
    if (bytes < kSmall && !part.by_rows) {
      small_.push_back(part);
      continue;
    }
    bucket_.push_back(part);
    bytes_ += bytes;
    if (bytes_ >= options_.bucket_bytes) set_out(ranks);
  }
  ready_ += last - first;
}

void GradientExchange::set_out(Communicator& ranks) {
  if (!bucket_.empty()) ranks.start(bucket_);
  bucket_.clear();
  bytes_ = 0;
}

void GradientExchange::finish(Communicator& ranks, const Tensor& loss_sum) {
  check(ready_ == parameters_.size(), "gradients of {} parameters are to be summed, and {} are ready",
        parameters_.size(), ready_);
  ready_ = 0;
  bucket_.insert(bucket_.end(), small_.begin(), small_.end());
  small_.clear();
  bucket_.push_back({loss_sum});
  set_out(ranks);
  ranks.finish();
}

}  // namespace llmz::engine
