#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

namespace llmz::data {

/// source -> several workers -> sink, in the source's order whatever the number of workers. The source runs on a thread
/// of its own, the sink on the caller's. At most `2·workers + 2` items are between source and sink, which bounds the
/// memory. An exception is rethrown by `run` when its turn comes, so the first error in order is the one reported.
template <class In, class Out>
class OrderedPipeline {
 public:
  OrderedPipeline(int workers, std::function<std::optional<In>()> source, std::function<Out(In&)> work)
      : limit_(2 * static_cast<uint64_t>(workers) + 2), source_(std::move(source)), work_(std::move(work)) {
    threads_.emplace_back([this] { read(); });
    for (int i = 0; i < workers; ++i) threads_.emplace_back([this] { labour(); });
  }
  OrderedPipeline(const OrderedPipeline&) = delete;
  OrderedPipeline& operator=(const OrderedPipeline&) = delete;
  ~OrderedPipeline() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  /// Hands every result to `sink`, in order.
  void run(const std::function<void(Out&)>& sink) {
    while (true) {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return done_.contains(taken_) || (ended_ && taken_ == made_); });
      if (!done_.contains(taken_)) return;
      Result result = std::move(done_.extract(taken_).mapped());
      ++taken_;
      lock.unlock();
      changed_.notify_all();
      if (result.error) std::rethrow_exception(result.error);
      sink(*result.value);
    }
  }

 private:
  struct Result {
    std::optional<Out> value;
    std::exception_ptr error;
  };

  void read() {
    std::unique_lock lock(mutex_);
    while (!ended_) {
      changed_.wait(lock, [&] { return stop_ || made_ - taken_ < limit_; });
      if (stop_) return;
      lock.unlock();
      std::optional<In> item;
      std::exception_ptr error;
      try {
        item = source_();
      } catch (...) {
        error = std::current_exception();
      }
      lock.lock();
      if (item) waiting_.emplace_back(made_++, std::move(*item));
      if (error) done_[made_++] = {std::nullopt, error};
      ended_ = !item;
      changed_.notify_all();
    }
  }

  void labour() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [&] { return stop_ || ended_ || !waiting_.empty(); });
      if (stop_ || waiting_.empty()) return;
      auto [number, item] = std::move(waiting_.front());
      waiting_.pop_front();
      lock.unlock();
      Result result;
      try {
        result.value = work_(item);
      } catch (...) {
        result.error = std::current_exception();
      }
      lock.lock();
      done_[number] = std::move(result);
      changed_.notify_all();
    }
  }

  const uint64_t limit_;
  std::function<std::optional<In>()> source_;
  std::function<Out(In&)> work_;

  std::mutex mutex_;  // guards all below
  std::condition_variable changed_;
  std::deque<std::pair<uint64_t, In>> waiting_;
  std::map<uint64_t, Result> done_;
  uint64_t made_ = 0, taken_ = 0;
  bool ended_ = false, stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace llmz::data
