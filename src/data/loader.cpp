#include "llmz/data/loader.h"

#include <algorithm>
#include <utility>

#include "llmz/core/error.h"

namespace llmz::data {
namespace {

int64_t count_windows(const Dataset& dataset, const LoaderOptions& o, const Objective& objective) {
  check(o.sequence_length > 0 && o.micro_batch > 0 && o.global_batch > 0,
        "sequence length {}, micro batch {}, global batch {}: each must be at least 1", o.sequence_length,
        o.micro_batch, o.global_batch);
  check(o.global_batch % o.micro_batch == 0, "the global batch of {} sequences is not a multiple of the micro batch {}",
        o.global_batch, o.micro_batch);
  const int64_t beyond = objective.reads(o.sequence_length) - o.sequence_length;
  check(dataset.tokens() >= o.sequence_length + beyond,
        "the dataset ({} ...) has {} tokens, fewer than one window of {} + {}; shorten the sequence or take more text",
        dataset.shards().front().path().string(), dataset.tokens(), o.sequence_length, beyond);
  return (dataset.tokens() - beyond) / o.sequence_length;
}

}  // namespace

Loader::Loader(const Dataset& dataset, const LoaderOptions& options, const Objective& objective)
    : dataset_(dataset),
      objective_(objective),
      options_(options),
      order_(count_windows(dataset, options, objective), options.seed) {}

int micro_steps(int64_t global_batch, int64_t micro_batch, int world) {
  check(world > 0 && global_batch % (micro_batch * world) == 0,
        "the global batch of {} sequences cannot be shared by {} ranks in micro batches of {}: it must be a multiple "
        "of {}",
        global_batch, world, micro_batch, micro_batch * world);
  return static_cast<int>(global_batch / (micro_batch * world));
}

int64_t Loader::window_of(int64_t index) const { return order_.at(index / windows(), index % windows()); }

double Loader::epochs(int64_t step) const {
  return static_cast<double>(step) * static_cast<double>(options_.global_batch) / static_cast<double>(windows());
}

void Loader::batch(int64_t step, int micro_index, int rank, int world, std::span<int32_t> tokens,
                   std::span<int32_t> targets) const {
  const int64_t length = options_.sequence_length;
  const auto size = static_cast<size_t>(options_.micro_batch * length);
  check(step >= 0 && rank >= 0 && rank < world && micro_index >= 0 && micro_index < micro_steps(world),
        "no batch for step {}, micro-step {}, rank {} of {}", step, micro_index, rank, world);
  check(tokens.size() == size && targets.size() == size, "a batch of {} x {} needs room for {} ids, got {} and {}",
        options_.micro_batch, length, size, tokens.size(), targets.size());
  const int64_t first = (int64_t{micro_index} * world + rank) * options_.micro_batch;
  std::vector<int32_t> text(static_cast<size_t>(objective_.reads(length)));
  for (int64_t row = 0; row < options_.micro_batch; ++row) {
    const int64_t sample = step * options_.global_batch + first + row;
    dataset_.read(window_of(sample) * length, text);
    const auto at = static_cast<size_t>(row * length), n = static_cast<size_t>(length);
    objective_.make(text, options_.seed, sample, tokens.subspan(at, n), targets.subspan(at, n));
  }
}

Prefetcher::Prefetcher(const Loader& loader, int64_t first_step, int rank, int world)
    : loader_(loader), rank_(rank), world_(world), micro_steps_(loader.micro_steps(world)), step_(first_step) {
  const auto size = static_cast<size_t>(loader.options().micro_batch * loader.options().sequence_length);
  tokens_.resize(size);
  targets_.resize(size);
  thread_ = std::thread([this] { work(); });
}

Prefetcher::~Prefetcher() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Prefetcher::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stop_ || !ready_; });
    if (stop_) return;
    // Held while reading: `next` has nothing to do but wait for this batch.
    try {
      loader_.batch(step_, micro_index_, rank_, world_, tokens_, targets_);
    } catch (...) {
      error_ = std::current_exception();
    }
    if (++micro_index_ == micro_steps_) {
      micro_index_ = 0;
      ++step_;
    }
    ready_ = true;
    changed_.notify_all();
  }
}

void Prefetcher::next(std::span<int32_t> tokens, std::span<int32_t> targets) {
  check(tokens.size() == tokens_.size() && targets.size() == targets_.size(),
        "a batch needs room for {} ids, got {} and {}", tokens_.size(), tokens.size(), targets.size());
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return ready_; });
  if (!error_) {
    std::copy(tokens_.begin(), tokens_.end(), tokens.begin());
    std::copy(targets_.begin(), targets_.end(), targets.begin());
  }
  const std::exception_ptr error = std::exchange(error_, nullptr);
  ready_ = false;
  lock.unlock();
  changed_.notify_all();
  if (error) std::rethrow_exception(error);
}

}  // namespace llmz::data
