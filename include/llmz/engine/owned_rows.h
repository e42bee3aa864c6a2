#pragma once

#include <memory>
#include <vector>

#include "llmz/core/communicator.h"
#include "llmz/core/exec.h"
#include "llmz/core/parameter.h"
#include "llmz/optim/optimizer.h"
#include "llmz/engine/ranks.h"

namespace llmz::train {

/// The parameters as the optimizer of one rank sees them. With ZeRO-1 a matrix is its rows [rank·c, (rank + 1)·c) of
/// N·c, the rows of the whole padded with zeros; vectors (gains and biases, less than a thousandth of a model) stay
/// whole on every rank. Without it all parameters are themselves.
class OwnedRows {
 public:
  OwnedRows(const std::vector<Parameter*>& parameters, bool shared, RankPlace place);
  OwnedRows(const OwnedRows&) = delete;  // the optimizer points into it
  OwnedRows& operator=(const OwnedRows&) = delete;

  /// In the order of the model; matrices are copies with sliced tensors.
  const std::vector<Parameter*>& parameters() const { return seen_; }
  bool shared() const { return shared_; }
  /// Whether ranks own rows of it.
  bool is_split(const Parameter& p) const { return shared_ && p.weight.rank() == 2; }
  /// Each rank has updated its rows: all get the others'.
  void gather_weights(Communicator& ranks) const;

 private:
  std::vector<Parameter*> whole_, seen_;
  std::vector<std::unique_ptr<Parameter>> slices_;
  bool shared_;
};

/// Optimizer states whole, one after the other, for checkpoints: a program of its own in the memory plan, which takes
/// room for the largest of them, on every rank.
class WholeState {
 public:
  WholeState(Exec& exec, const optim::Optimizer& optimizer);

  /// Collective: the state's rows of all ranks; all rows of the parameter, until the next call.
  Tensor gather(const optim::Optimizer::State& state);
  /// The shape and type that `gather` gives, without data.
  static Tensor shape(const optim::Optimizer::State& state);
  /// Room for a whole state; then, collective: from rank 0's room into every rank's own rows.
  Tensor room(const optim::Optimizer::State& state);
  void scatter(const optim::Optimizer::State& state);

 private:
  Tensor padded_room(const optim::Optimizer::State& state) const;
  Tensor own_rows(const optim::Optimizer::State& state) const;

  Exec& exec_;
  ProgramScope program_;
  Buffer buffer_;
  void* gathered_ = nullptr;  ///< data of the state that the room holds
};

}  // namespace llmz::train
