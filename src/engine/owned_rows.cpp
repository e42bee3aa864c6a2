#include "llmz/engine/owned_rows.h"

#include <algorithm>

#include "llmz/core/transfer.h"

namespace llmz::train {

OwnedRows::OwnedRows(const std::vector<Parameter*>& parameters, bool shared, RankPlace place)
    : whole_(parameters), shared_(shared) {
  for (Parameter* p : parameters) {
    if (!is_split(*p)) {
      seen_.push_back(p);
      continue;
    }
    auto slice = std::make_unique<Parameter>(*p);
    const int64_t count = p->padded_rows / place.size, first = count * place.rank;
    const auto own = [&](Tensor& t) {
      if (!t.present()) return;
      t.shape[0] = p->padded_rows;
      t = t.slice(0, first, count);
    };
    own(slice->weight);
    own(slice->grad.dense);
    own(slice->grad.low.factor);
    own(slice->grad.low.row_term);
    slice->padded_rows = count;
    slice->shard = {.first = first, .whole = p->weight.dim(0)};
    seen_.push_back(slice.get());
    slices_.push_back(std::move(slice));
  }
}

void OwnedRows::gather_weights(Communicator& ranks) const {
  std::vector<Tensor> all;
  for (const Parameter* p : whole_) {
    if (is_split(*p)) all.push_back(p->padded(p->weight));
  }
  if (!all.empty()) ranks.all_gather_rows(all);
}

namespace {

bool is_split_state(const optim::Optimizer::State& state) { return state.by_rows && state.parameter->shard.whole > 0; }

Buffer take_room(Exec& exec, const optim::Optimizer& optimizer) {
  size_t bytes = 0;
  for (const auto& state : optimizer.states()) {
    if (is_split_state(state)) bytes = std::max(bytes, state.tensor.bytes());
  }
  if (bytes == 0) return {};
  const auto whole = static_cast<int64_t>(bytes) * exec.ranks->size();
  return exec.memory.take("checkpoint.state", Category::communication, {whole}, DType::u8);
}

}  // namespace

WholeState::WholeState(Exec& exec, const optim::Optimizer& optimizer)
    : exec_(exec), program_(exec.memory, "checkpoint"), buffer_(take_room(exec, optimizer)) {}

Tensor WholeState::padded_room(const optim::Optimizer::State& state) const {
  Shape shape = state.tensor.shape;
  shape[0] *= exec_.ranks->size();
  return Tensor(buffer_.tensor().data, state.tensor.dtype, shape, state.tensor.device);
}

Tensor WholeState::own_rows(const optim::Optimizer::State& state) const {
  const int64_t count = state.tensor.dim(0);
  return padded_room(state).slice(0, count * exec_.ranks->rank(), count);
}

Tensor WholeState::shape(const optim::Optimizer::State& state) {
  if (!is_split_state(state)) return state.tensor;
  Shape shape = state.tensor.shape;
  shape[0] = state.parameter->shard.whole;
  return Tensor(nullptr, state.tensor.dtype, shape, {DeviceType::meta, 0});
}

Tensor WholeState::room(const optim::Optimizer::State& state) {
  if (!is_split_state(state)) return state.tensor;
  gathered_ = nullptr;
  const Tensor all = padded_room(state);
  const int64_t whole = state.parameter->shard.whole;
  // Another state was here before; rows that no weight has must be zero in each.
  zero(exec_.memory, all.slice(0, whole, all.dim(0) - whole));
  return all.slice(0, 0, whole);
}

Tensor WholeState::gather(const optim::Optimizer::State& state) {
  if (!is_split_state(state)) return state.tensor;
  if (gathered_ != state.tensor.data) {
    copy_bytes(exec_.memory, own_rows(state), state.tensor);
    const Tensor all = padded_room(state);
    exec_.ranks->all_gather_rows({&all, 1});
    gathered_ = state.tensor.data;
  }
  return padded_room(state).slice(0, 0, state.parameter->shard.whole);
}

void WholeState::scatter(const optim::Optimizer::State& state) {
  if (exec_.ranks == nullptr) return;
  if (!is_split_state(state)) return exec_.ranks->broadcast(state.tensor, 0);
  exec_.ranks->broadcast(padded_room(state), 0);
  copy_bytes(exec_.memory, state.tensor, own_rows(state));
}

}  // namespace llmz::train
