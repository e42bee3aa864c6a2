#pragma once

#include <atomic>
#include <barrier>
#include <exception>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

#include "llmz/core/error.h"
#include "ops/fixture.h"

namespace llmz::test {

/// Where the threads of a ThreadCommunicator meet. When one of them fails, the others are told at their next meeting.
class MeetingPlace {
 public:
  explicit MeetingPlace(int size) : barrier_(size), shown_(static_cast<size_t>(size)) {}

  void meet() {
    barrier_.arrive_and_wait();
    check(!failed_, "another rank failed");
  }
  void leave_failed() {
    failed_ = true;
    barrier_.arrive_and_drop();
  }
  /// What each rank brought to the call in progress.
  std::vector<std::vector<Tensor>>& shown() { return shown_; }

 private:
  std::barrier<> barrier_;
  std::atomic<bool> failed_ = false;
  std::vector<std::vector<Tensor>> shown_;
};

/// The collectives of ranks that are threads of this process, on CPU tensors. Sums are made in the order of ranks. What
/// a reduction by rows leaves undefined is NaN afterwards.
class ThreadCommunicator final : public Communicator {
 public:
  ThreadCommunicator(MeetingPlace& place, int rank, int size) : Communicator(rank, size), place_(place) {}
  std::string_view name() const override { return "threads"; }

 private:
  void do_start(std::span<const Reduction> bucket) override {
    std::vector<Tensor> tensors;
    for (const Reduction& r : bucket) tensors.push_back(r.tensor);
    show(tensors);
    std::vector<std::vector<std::byte>> sums;
    for (size_t i = 0; i < bucket.size(); ++i) sums.push_back(sum_of(i));
    place_.meet();  // all have read
    for (size_t i = 0; i < bucket.size(); ++i) {
      const Tensor& t = tensors[i];
      size_t begin = 0, bytes = t.bytes();
      if (bucket[i].by_rows) {
        bytes /= static_cast<size_t>(size());
        begin = bytes * static_cast<size_t>(rank());
        std::memset(t.data, 0xff, t.bytes());
      }
      std::memcpy(static_cast<std::byte*>(t.data) + begin, sums[i].data() + begin, bytes);
    }
  }
  void do_finish() override {}

  void do_all_gather_rows(std::span<const Tensor> tensors) override {
    show({tensors.begin(), tensors.end()});
    for (size_t i = 0; i < tensors.size(); ++i) {
      const size_t part = tensors[i].bytes() / static_cast<size_t>(size());
      for (int from = 0; from < size(); ++from) {
        if (from != rank()) copy(tensors[i], from, i, part * static_cast<size_t>(from), part);
      }
    }
    place_.meet();
  }
  void do_broadcast(std::span<const Tensor> tensors, int root) override {
    show({tensors.begin(), tensors.end()});
    for (size_t i = 0; i < tensors.size() && rank() != root; ++i) copy(tensors[i], root, i, 0, tensors[i].bytes());
    place_.meet();
  }

  void show(std::vector<Tensor> tensors) {
    place_.shown()[static_cast<size_t>(rank())] = std::move(tensors);
    place_.meet();
  }
  const Tensor& shown_by(int rank, size_t i) const { return place_.shown()[static_cast<size_t>(rank)].at(i); }
  void copy(const Tensor& to, int from, size_t i, size_t begin, size_t bytes) const {
    std::memcpy(static_cast<std::byte*>(to.data) + begin, static_cast<const std::byte*>(shown_by(from, i).data) + begin,
                bytes);
  }

  std::vector<std::byte> sum_of(size_t i) const {
    const Tensor& own = shown_by(rank(), i);
    std::vector<std::byte> sum(own.bytes());
    switch (own.dtype) {
      case DType::f32: add_all<float>(sum, i); break;
      case DType::f64: add_all<double>(sum, i); break;
      case DType::bf16: add_all<bf16>(sum, i); break;
      default: fail("only floating-point numbers are summed, not {}", dtype_name(own.dtype));
    }
    return sum;
  }
  /// bf16 is summed in fp32.
  template <class T>
  void add_all(std::vector<std::byte>& sum, size_t i) const {
    using Real = std::conditional_t<std::is_same_v<T, double>, double, float>;
    for (int64_t e = 0; e < shown_by(0, i).numel(); ++e) {
      Real total = 0;
      for (int rank = 0; rank < size(); ++rank) total += static_cast<Real>(shown_by(rank, i).as<T>()[e]);
      const T stored(total);
      std::memcpy(sum.data() + static_cast<size_t>(e) * sizeof(T), &stored, sizeof(T));
    }
  }

  MeetingPlace& place_;
};

/// Runs `body` as `size` ranks at once, each on a thread of its own, where nothing may be asserted. Throws what the
/// first of them to fail threw. Returns what went through each rank's collectives.
inline std::vector<Traffic> run_ranks(int size, const std::function<void(Communicator&)>& body) {
  MeetingPlace place(size);
  std::vector<Traffic> traffic(static_cast<size_t>(size));
  std::exception_ptr failure;
  std::mutex first_failure;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        ThreadCommunicator ranks(place, rank, size);
        body(ranks);
        traffic[static_cast<size_t>(rank)] = ranks.traffic();
      } catch (...) {
        {
          const std::lock_guard lock(first_failure);
          if (!failure) failure = std::current_exception();
        }
        place.leave_failed();
      }
    });
  }
  for (std::thread& t : threads) t.join();
  if (failure) std::rethrow_exception(failure);
  return traffic;
}

/// Runs an op on `size` ranks at once, each as `plan_and_run` does, planned with a DryCommunicator. Requires of every
/// rank what `run_op` requires, and that planning counted the traffic of the run, which it returns for rank 0.
inline Traffic run_on_ranks(int size, const std::function<void(Exec&, int rank)>& body) {
  std::vector<OpRun> runs(static_cast<size_t>(size));
  std::vector<Traffic> planned(runs.size());
  const std::vector<Traffic> traffic = run_ranks(size, [&](Communicator& ranks) {
    const auto r = static_cast<size_t>(ranks.rank());
    DryCommunicator dry(ranks.rank(), size);
    runs[r] = plan_and_run([&](Exec& e) { body(e, ranks.rank()); }, &dry, &ranks);
    planned[r] = dry.traffic();
  });
  for (size_t r = 0; r < runs.size(); ++r) {
    INFO("rank " << r << " of " << size);
    REQUIRE(runs[r].within_bounds);
    REQUIRE(runs[r].flops == runs[r].planned_flops);
    REQUIRE(traffic[r].bytes == planned[r].bytes);
  }
  return traffic.front();
}

}  // namespace llmz::test
