#include "src/codec/parts.h"

#include <algorithm>

namespace llmz::codec {

Parted::Parted(const CodecOptions& options, Memory& memory, MakePart make)
    : decoded_name_(options.name + ".decoded"), widths_(options.widths), dtype_(options.dtype) {
  for (size_t i = 0; i < widths_.size(); ++i) {
    const std::string name = widths_.size() == 1 ? options.name : fmt::format("{}.{}", options.name, i);
    parts_.push_back(make(options, name, widths_[i], options.stream.part(i), memory));
  }
  std::vector<JoinedRefresh::Of> changing;
  int64_t first = 0;
  for (size_t i = 0; i < parts_.size(); ++i) {
    if (subspace::Refresh* const of = parts_[i]->refresh()) changing.push_back({of, first, widths_[i]});
    first += widths_[i];
  }
  if (!changing.empty()) refresh_.emplace(std::move(changing));
}

CodecFacts Parted::facts() const {
  const Projector* const projector = parts_.size() == 1 ? parts_[0]->projector() : nullptr;
  return {.is_sketch = projector != nullptr,
          .draws_each_pass = std::any_of(parts_.begin(), parts_.end(), [](auto& p) { return p->draws_each_pass(); }),
          .projector = projector};
}

Buffer Parted::decode(Exec& exec) {
  Buffer x = exec.memory.take(decoded_name_, Category::activations, shape_, dtype_);
  for_parts(x.tensor(), [&](Part& part, Tensor into) { part.decode(exec, into); });
  return x;
}

void Parted::keep(Exec& exec, Buffer x, Rebuild) {
  shape_ = x.tensor().shape;
  for_parts(x.tensor(), [&](Part& part, Tensor view) { part.encode(exec, view); });
}

void Parted::drop() {
  for (auto& part : parts_) part->drop();
}

void JoinedRefresh::advance() {
  for (const Of& part : parts_) part.refresh->advance();
}

void JoinedRefresh::observe(Exec& exec, Tensor x) {
  for (const Of& part : parts_) part.refresh->observe(exec, x.slice(1, part.first, part.width));
}

std::vector<subspace::State> JoinedRefresh::states() const {
  std::vector<subspace::State> all;
  for (const Of& part : parts_) {
    for (subspace::State& state : part.refresh->states()) all.push_back(std::move(state));
  }
  return all;
}

std::vector<subspace::Spectrum> JoinedRefresh::spectra() const {
  std::vector<subspace::Spectrum> all;
  for (const Of& part : parts_) {
    for (subspace::Spectrum& spectrum : part.refresh->spectra()) all.push_back(std::move(spectrum));
  }
  return all;
}

}  // namespace llmz::codec
