#pragma once

#include <functional>
#include <vector>

#include "llmz/core/communicator.h"
#include "llmz/core/parameter.h"

namespace llmz::engine {

/// Sums the gradients of a step over ranks, as backward leaves them: low-rank ones stay low-rank on the wire, since all
/// ranks project through the same P. They set out in buckets, in the order in which backward finishes them; what is
/// small goes with the last.
class GradientExchange {
 public:
  struct Options {
    size_t bucket_bytes = 0;
    std::function<Reduction(size_t)> reduction;  ///< of the gradient of a parameter, by its place
  };
  GradientExchange(const std::vector<Parameter*>& parameters, Options options);

  /// Backward will not touch the gradients of parameters [first, last) any more.
  void ready(Communicator& ranks, size_t first, size_t last);
  /// Sends what has not set out yet, with `loss_sum`, and waits for all. Every parameter must have been ready.
  void finish(Communicator& ranks, const Tensor& loss_sum);

 private:
  void set_out(Communicator& ranks);

  std::vector<Parameter*> parameters_;
  Options options_;
  std::vector<Reduction> bucket_, small_;
  size_t bytes_ = 0;  ///< in bucket_
  size_t ready_ = 0;  ///< parameters since the last finish
};

}  // namespace llmz::engine
