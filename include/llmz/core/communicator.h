#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "llmz/core/tensor.h"

namespace llmz {

/// What went through collectives so far, as bytes of the tensors that took part. Counted where a collective is called,
/// while planning as in a run.
struct Traffic {
  enum Kind : uint8_t { all_reduce, reduce_scatter, all_gather, broadcast };
  static constexpr int kKinds = 4;
  std::array<double, kKinds> bytes = {};

  double operator[](Kind kind) const { return bytes[kind]; }
  /// Bytes that each of `ranks` processes sends when they stand in a ring, which is the least there is: per byte of the
  /// tensor 2·(n−1)/n to all-reduce, (n−1)/n to reduce-scatter, to all-gather and, on average, to broadcast.
  double sent(int ranks) const;
  Traffic operator-(const Traffic& earlier) const;
  Traffic operator+(const Traffic& other) const;
};
std::string_view traffic_name(Traffic::Kind kind);

/// How one tensor is summed over ranks. `by_rows` is a reduce-scatter: the tensor's rows are as many equal parts as
/// there are ranks; afterwards the part of this rank holds the sum and the others hold nothing of use.
struct Reduction {
  Tensor tensor;
  bool by_rows = false;
};

/// The collectives of a run over its ranks, on contiguous tensors of one Memory, in place. All ranks make the same
/// calls in the same order with tensors of the same shapes and types. On a GPU a call returns at once and what follows
/// on the stream comes after it; on the CPU it returns when the data is there, except `start`, which goes on beside
/// other work until `finish`. Sums are the same bits on every rank.
///
/// Callers: the engine (gradients, weights, losses), codecs and optimizers (statistics that no rank has alone, by way
/// of Exec). Implementations: DryCommunicator here; MPI and NCCL in `dist`. Floating-point types; all_gather and
/// broadcast take any.
class Communicator {
 public:
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  virtual std::string_view name() const = 0;  ///< "single", "MPI", "NCCL"

  /// Each tensor becomes its sum over ranks.
  void all_reduce(std::span<const Tensor> tensors);
  void all_reduce(const Tensor& tensor) { all_reduce({&tensor, 1}); }
  /// Begins to sum these; they must not be touched until `finish`. May be called again before that; the order counts.
  void start(std::span<const Reduction> bucket);
  /// All that was started is done.
  void finish();
  /// The rows of each tensor are as many equal parts as there are ranks; every rank gets the parts of all others.
  void all_gather_rows(std::span<const Tensor> tensors);
  /// Each tensor becomes rank `root`'s.
  void broadcast(std::span<const Tensor> tensors, int root);
  void broadcast(const Tensor& tensor, int root) { broadcast({&tensor, 1}, root); }

  const Traffic& traffic() const { return traffic_; }
  /// Seconds that calls of this class have kept the caller waiting. On a GPU it measures launches only.
  double seconds_waited() const { return seconds_waited_; }

 protected:
  Communicator(int rank, int size);
  virtual void do_start(std::span<const Reduction> bucket) = 0;
  virtual void do_finish() = 0;
  virtual void do_all_gather_rows(std::span<const Tensor> tensors) = 0;
  virtual void do_broadcast(std::span<const Tensor> tensors, int root) = 0;

 private:
  class Waiting;
  void count(Traffic::Kind kind, const Tensor& tensor);
  void check_rows(const Tensor& tensor) const;

  int rank_, size_;
  Traffic traffic_;
  double seconds_waited_ = 0;
};

/// Counts, and moves nothing: one rank that is alone, or, while planning, a rank of many.
class DryCommunicator final : public Communicator {
 public:
  static constexpr std::string_view kName = "single";
  explicit DryCommunicator(int rank = 0, int size = 1) : Communicator(rank, size) {}
  std::string_view name() const override { return kName; }

 private:
  void do_start(std::span<const Reduction>) override {}
  void do_finish() override {}
  void do_all_gather_rows(std::span<const Tensor>) override {}
  void do_broadcast(std::span<const Tensor>, int) override {}
};

}  // namespace llmz
