#include "src/codec/parts.h"

#include <algorithm>

namespace llmz::codec {

Parted::Parted(const CodecOptions& options, Memory& memory, MakePart make)
    : decoded_name_(options.name + ".decoded"), widths_(options.widths), dtype_(options.dtype) {
  for (size_t i = 0; i < widths_.size(); ++i) {
    const std::string name = widths_.size() == 1 ? options.name : fmt::format("{}.{}", options.name, i);
    parts_.push_back(make(options, name, widths_[i], options.layer + static_cast<uint32_t>(i), memory));
  }
}

Buffer Parted::decode(Exec& exec) {
  Buffer x = exec.memory.take(decoded_name_, Category::activations, shape_, dtype_);
  for_parts(x.tensor(), [&](Part& part, Tensor into) { part.decode(exec, into); });
  return x;
}

void Parted::do_keep(Exec& exec, Buffer x, Rebuild) {
  shape_ = x.tensor().shape;
  for_parts(x.tensor(), [&](Part& part, Tensor view) { part.encode(exec, view); });
}

void Parted::do_drop() {
  for (auto& part : parts_) part->drop();
}

void Parted::advance() {
  for (auto& part : parts_) part->advance();
}

std::vector<int64_t> Parted::periods() const { return parts_[0]->periods(); }

bool Parted::observes() const { return parts_[0]->observes(); }

void Parted::observe(Exec& exec, Tensor x) {
  for_parts(x, [&](Part& part, Tensor view) { part.observe(exec, view); });
}

std::vector<subspace::State> Parted::states() const {
  std::vector<subspace::State> all;
  for (const auto& part : parts_) {
    for (subspace::State& state : part->states()) all.push_back(std::move(state));
  }
  return all;
}

std::vector<subspace::Spectrum> Parted::spectra() const {
  std::vector<subspace::Spectrum> all;
  for (const auto& part : parts_) {
    for (subspace::Spectrum& spectrum : part->spectra()) all.push_back(std::move(spectrum));
  }
  return all;
}

}  // namespace llmz::codec
