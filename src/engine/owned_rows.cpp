#include "llmz/engine/owned_rows.h"

#include <algorithm>

#include "llmz/core/transfer.h"

namespace llmz::engine {

OwnedRows::OwnedRows(const std::vector<Parameter*>& parameters, const std::vector<optim::Owns>& owns, bool shared,
                     RankPlace place)
    : whole_(parameters), seen_(parameters), shared_(shared) {
  if (!shared) return;
  std::vector<size_t> matrices;
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (owns.at(i) == optim::Owns::rows) seen_[i] = rows_of(*parameters[i], place);
    if (owns[i] == optim::Owns::whole) matrices.push_back(i);
  }
  share_out(matrices, place);
}

Parameter* OwnedRows::rows_of(const Parameter& p, RankPlace place) {
  auto slice = std::make_unique<Parameter>(p);
  const int64_t count = p.padded_rows / place.size, first = count * place.rank;
  const auto own = [&](Tensor& t) {
    if (!t.present()) return;
    t.shape[0] = p.padded_rows;
    t = t.slice(0, first, count);
  };
  own(slice->weight);
  own(slice->grad.dense);
  own(slice->grad.low.factor);
  own(slice->grad.low.row_term);
  slice->padded_rows = count;
  slice->shard = {.first = first, .whole = p.weight.dim(0)};
  slices_.push_back(std::move(slice));
  return slices_.back().get();
}

/// Every rank comes to the same owners.
void OwnedRows::share_out(const std::vector<size_t>& matrices, RankPlace place) {
  std::vector<size_t> by_size = matrices;
  std::stable_sort(by_size.begin(), by_size.end(),
                   [&](size_t a, size_t b) { return whole_[a]->weight.numel() > whole_[b]->weight.numel(); });
  std::vector<int64_t> elements(static_cast<size_t>(place.size));
  for (const size_t i : by_size) {
    const auto least = std::min_element(elements.begin(), elements.end());
    *least += whole_[i]->weight.numel();
    const int owner = static_cast<int>(least - elements.begin());
    slices_.push_back(std::make_unique<Parameter>(*whole_[i]));
    seen_[i] = slices_.back().get();
    seen_[i]->owner = {.rank = owner, .elsewhere = owner != place.rank};
  }
}

Reduction OwnedRows::reduction(size_t i) const {
  const Tensor grad = whole_[i]->grad.accumulator();
  if (seen_[i]->shard.whole > 0) return {.tensor = whole_[i]->padded(grad), .by_rows = true};
  return {.tensor = grad};
}

void OwnedRows::gather_weights(Communicator& ranks) const {
  std::vector<Tensor> by_rows;
  std::vector<std::vector<Tensor>> by_owner(static_cast<size_t>(ranks.size()));
  for (size_t i = 0; i < whole_.size(); ++i) {
    if (seen_[i]->shard.whole > 0) by_rows.push_back(whole_[i]->padded(whole_[i]->weight));
    if (seen_[i]->owner.known()) by_owner[static_cast<size_t>(seen_[i]->owner.rank)].push_back(whole_[i]->weight);
  }
  if (!by_rows.empty()) ranks.all_gather_rows(by_rows);
  for (int owner = 0; owner < ranks.size(); ++owner) {
    const auto& tensors = by_owner[static_cast<size_t>(owner)];
    if (!tensors.empty()) ranks.broadcast(tensors, owner);
  }
}

namespace {

bool is_split_state(const optim::Optimizer::State& state) { return state.by_rows && state.parameter->shard.whole > 0; }

bool has_owner(const optim::Optimizer::State& state) { return state.parameter->owner.known(); }

Buffer take_room(Exec& exec, const optim::Optimizer& optimizer) {
  int64_t bytes = 0;
  for (const auto& state : optimizer.states()) {
    const auto own = static_cast<int64_t>(state.tensor.bytes());
    if (has_owner(state)) bytes = std::max(bytes, own);
    if (is_split_state(state)) bytes = std::max(bytes, own * exec.ranks->size());
  }
  if (bytes == 0) return {};
  return exec.memory.take("checkpoint.state", Category::communication, {bytes}, DType::u8);
}

std::string name_of(const optim::Optimizer::State& state) { return state.parameter->name + "." + state.slot; }

}  // namespace

WholeState::WholeState(Exec& exec, const optim::Optimizer& optimizer)
    : exec_(exec), program_(exec.memory, "checkpoint"), buffer_(take_room(exec, optimizer)) {}

Tensor WholeState::padded_room(const optim::Optimizer::State& state) const {
  Shape shape = state.tensor.shape;
  if (is_split_state(state)) shape[0] *= exec_.ranks->size();
  return Tensor(buffer_.tensor().data, state.tensor.dtype, shape, buffer_.tensor().device);
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
  if (has_owner(state)) {
    gathered_.clear();
    return padded_room(state);
  }
  if (!is_split_state(state)) return state.tensor;
  gathered_.clear();
  const Tensor all = padded_room(state);
  const int64_t whole = state.parameter->shard.whole;
  // Another state was here before; rows that no weight has must be zero in each.
  zero(exec_.memory, all.slice(0, whole, all.dim(0) - whole));
  return all.slice(0, 0, whole);
}

Tensor WholeState::gather(const optim::Optimizer::State& state) {
  if (has_owner(state)) {
    const Owner owner = state.parameter->owner;
    if (gathered_ != name_of(state)) {
      if (!owner.elsewhere) copy_bytes(exec_.memory, padded_room(state), state.tensor);
      exec_.ranks->broadcast(padded_room(state), owner.rank);
      gathered_ = name_of(state);
    }
    return padded_room(state);
  }
  if (!is_split_state(state)) return state.tensor;
  if (gathered_ != name_of(state)) {
    copy_bytes(exec_.memory, own_rows(state), state.tensor);
    const Tensor all = padded_room(state);
    exec_.ranks->all_gather_rows({&all, 1});
    gathered_ = name_of(state);
  }
  return padded_room(state).slice(0, 0, state.parameter->shard.whole);
}

void WholeState::scatter(const optim::Optimizer::State& state) {
  if (exec_.ranks == nullptr) return;
  if (!is_split_state(state) && !has_owner(state)) return exec_.ranks->broadcast(state.tensor, 0);
  exec_.ranks->broadcast(padded_room(state), 0);
  if (has_owner(state)) {
    if (!state.parameter->owner.elsewhere) copy_bytes(exec_.memory, state.tensor, padded_room(state));
  } else {
    copy_bytes(exec_.memory, state.tensor, own_rows(state));
  }
}

}  // namespace llmz::engine
