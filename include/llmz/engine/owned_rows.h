#pragma once

#include <memory>
#include <string>
#include <vector>

#include "llmz/core/communicator.h"
#include "llmz/core/exec.h"
#include "llmz/core/parameter.h"
#include "llmz/engine/ranks.h"
#include "llmz/optim/optimizer.h"

namespace llmz::engine {

/// The parameters as the optimizer of one rank sees them. With ZeRO-1 a matrix is its rows [rank·c, (rank + 1)·c) of
/// N·c, the rows of the whole padded with zeros, or, where its rule must see all of it, whole on one rank, the biggest
/// first and each to the rank that has least; vectors (gains and biases, less than a thousandth of a model) stay whole
/// on every rank. Without it all parameters are themselves.
class OwnedRows {
 public:
  /// `owns`: what each parameter's rule must see.
  OwnedRows(const std::vector<Parameter*>& parameters, const std::vector<optim::Owns>& owns, bool shared,
            RankPlace place);
  OwnedRows(const OwnedRows&) = delete;  // the optimizer points into it
  OwnedRows& operator=(const OwnedRows&) = delete;

  /// In the order of the model; matrices are copies with sliced tensors.
  const std::vector<Parameter*>& parameters() const { return seen_; }
  bool shared() const { return shared_; }
  /// How the gradient of parameter i is to be summed over ranks.
  Reduction reduction(size_t i) const;
  /// Each rank has updated what it owns: all get the others'.
  void gather_weights(Communicator& ranks) const;

 private:
  Parameter* rows_of(const Parameter& p, RankPlace place);
  void share_out(const std::vector<size_t>& matrices, RankPlace place);

  std::vector<Parameter*> whole_, seen_;
  std::vector<std::unique_ptr<Parameter>> slices_;
  bool shared_;
};

/// Optimizer states whole, one after the other, for checkpoints: a program of its own in the memory plan, which takes
/// room for the largest of those that ranks do not all have, on every rank.
class WholeState {
 public:
  WholeState(Exec& exec, const optim::Optimizer& optimizer);

  /// Collective: the state's rows of all ranks, or what one rank alone has; all rows of the parameter, until the next
  /// call.
  Tensor gather(const optim::Optimizer::State& state);
  /// The shape and type that `gather` gives, without data.
  static Tensor shape(const optim::Optimizer::State& state);
  /// Room for a whole state; then, collective: from rank 0's room to those who own it.
  Tensor room(const optim::Optimizer::State& state);
  void scatter(const optim::Optimizer::State& state);

 private:
  Tensor padded_room(const optim::Optimizer::State& state) const;
  Tensor own_rows(const optim::Optimizer::State& state) const;

  Exec& exec_;
  ProgramScope program_;
  Buffer buffer_;
  std::string gathered_;  ///< the state that the room holds
};

}  // namespace llmz::engine
