#include "llmz/core/communicator.h"

#include <chrono>

#include "llmz/core/error.h"

namespace llmz {

double Traffic::sent(int ranks) const {
  const double passes = 2 * bytes[all_reduce] + bytes[reduce_scatter] + bytes[all_gather] + bytes[broadcast];
  return passes * static_cast<double>(ranks - 1) / static_cast<double>(ranks);
}

Traffic Traffic::operator-(const Traffic& earlier) const {
  Traffic difference = *this;
  for (size_t i = 0; i < kKinds; ++i) difference.bytes[i] -= earlier.bytes[i];
  return difference;
}

Traffic Traffic::operator+(const Traffic& other) const {
  Traffic sum = *this;
  for (size_t i = 0; i < kKinds; ++i) sum.bytes[i] += other.bytes[i];
  return sum;
}

std::string_view traffic_name(Traffic::Kind kind) {
  switch (kind) {
    case Traffic::all_reduce: return "all-reduce";
    case Traffic::reduce_scatter: return "reduce-scatter";
    case Traffic::all_gather: return "all-gather";
    case Traffic::broadcast: return "broadcast";
  }
  return "";
}

/// Adds the time of a call to what was waited.
class Communicator::Waiting {
 public:
  explicit Waiting(Communicator& c) : c_(c) {}
  ~Waiting() { c_.seconds_waited_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count(); }
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;

 private:
  Communicator& c_;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

Communicator::Communicator(int rank, int size) : rank_(rank), size_(size) {
  check(size >= 1 && rank >= 0 && rank < size, "there is no rank {} of {}", rank, size);
}

void Communicator::count(Traffic::Kind kind, const Tensor& tensor) {
  check(tensor.contiguous(), "{}: a tensor {} with gaps cannot be sent", traffic_name(kind), tensor.shape.str());
  traffic_.bytes[kind] += static_cast<double>(tensor.bytes());
}

void Communicator::check_rows(const Tensor& tensor) const {
  check(tensor.rank() >= 1 && tensor.dim(0) % size_ == 0, "{} rows are not {} equal parts",
        tensor.rank() >= 1 ? tensor.dim(0) : 0, size_);
}

void Communicator::all_reduce(std::span<const Tensor> tensors) {
  std::vector<Reduction> bucket;
  for (const Tensor& t : tensors) bucket.push_back({t});
  start(bucket);
  finish();
}

void Communicator::start(std::span<const Reduction> bucket) {
  for (const Reduction& r : bucket) {
    if (r.by_rows) check_rows(r.tensor);
    count(r.by_rows ? Traffic::reduce_scatter : Traffic::all_reduce, r.tensor);
  }
  const Waiting waiting(*this);
  do_start(bucket);
}

void Communicator::finish() {
  const Waiting waiting(*this);
  do_finish();
}

void Communicator::all_gather_rows(std::span<const Tensor> tensors) {
  for (const Tensor& t : tensors) {
    check_rows(t);
    count(Traffic::all_gather, t);
  }
  const Waiting waiting(*this);
  do_all_gather_rows(tensors);
}

void Communicator::broadcast(std::span<const Tensor> tensors, int root) {
  check(root >= 0 && root < size_, "there is no rank {} of {}", root, size_);
  for (const Tensor& t : tensors) count(Traffic::broadcast, t);
  const Waiting waiting(*this);
  do_broadcast(tensors, root);
}

}  // namespace llmz
