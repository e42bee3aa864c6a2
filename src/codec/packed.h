#pragma once

#include "llmz/codec/codec.h"
#include "llmz/ops/quant.h"

namespace llmz::codec {

/// Holds a tensor [T,n] until backward: as it is, or in few bits.
class Packed {
 public:
  /// Of the tensor that `options` describe, or the part of it that is called `name`.
  Packed(const CodecOptions& options, std::string name, const QuantConfig& quant, uint32_t layer);

  bool packs() const { return packs_; }
  /// Whether each packing draws new random numbers.
  bool draws() const { return packs_ && format_.stochastic; }
  /// A buffer [T,n] to write what will be held: the held one itself unless it is packed.
  Buffer target(Exec& exec, int64_t tokens, int64_t width);
  /// Holds what was written to a `target`.
  void hold(Exec& exec, Buffer x);
  /// Packs a view. Only when `packs()`.
  void pack(Exec& exec, Tensor x);
  void unpack(Exec& exec, Tensor into) const;
  /// A buffer with the held values.
  Buffer values(Exec& exec) const;
  void drop();

 private:
  std::string name_, scales_name_, values_name_;
  std::string_view role_;
  bool packs_;
  ops::QuantFormat format_;
  DType dtype_;
  uint32_t layer_;
  const subspace::Clock* clock_;
  int64_t width_ = 0;
  Buffer values_, codes_, scales_;
};

}  // namespace llmz::codec
