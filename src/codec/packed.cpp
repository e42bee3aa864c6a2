#include "src/codec/packed.h"

#include "llmz/ops/elementwise.h"
#include "llmz/subspace/streams.h"

namespace llmz::codec {

Packed::Packed(const CodecOptions& options, std::string name, const QuantConfig& quant, uint32_t layer)
    : name_(std::move(name)),
      scales_name_(name_ + ".scales"),
      values_name_(name_ + ".values"),
      role_(options.role),
      packs_(quant.bits != 0),
      format_{.bits = static_cast<int>(quant.bits),
              .group = quant.group,
              .rotate = quant.rotate,
              .stochastic = quant.rounding == Rounding::stochastic},
      dtype_(options.dtype),
      layer_(layer),
      clock_(options.clock) {}

Buffer Packed::target(Exec& exec, int64_t tokens, int64_t width) {
  return exec.memory.take(values_name_, packs_ ? Category::activations : Category::codes, {tokens, width}, dtype_,
                          role_);
}

void Packed::hold(Exec& exec, Buffer x) {
  if (packs_) return pack(exec, x.tensor());
  values_ = std::move(x);
}

void Packed::pack(Exec& exec, Tensor x) {
  width_ = x.dim(1);
  codes_ = exec.memory.take(name_, Category::codes, {x.dim(0), format_.row_bytes(width_)}, DType::u8, role_);
  scales_ = exec.memory.take(scales_name_, Category::codes, {x.dim(0), format_.groups(width_)}, DType::bf16, role_);
  ops::quantize(exec, codes_.tensor(), scales_.tensor(), x, format_, subspace::rotation_signs(*clock_, layer_),
                subspace::rounding_draws(*clock_, layer_));
}

void Packed::unpack(Exec& exec, Tensor into) const {
  if (!packs_) return ops::copy(exec, into, values_.tensor());
  ops::dequantize(exec, into, codes_.tensor(), scales_.tensor(), format_, subspace::rotation_signs(*clock_, layer_));
}

Buffer Packed::values(Exec& exec) const {
  if (!packs_) return values_;
  Buffer x = exec.memory.take(values_name_, Category::activations, {codes_.tensor().dim(0), width_}, dtype_);
  unpack(exec, x.tensor());
  return x;
}

void Packed::drop() {
  values_.reset();
  codes_.reset();
  scales_.reset();
}

}  // namespace llmz::codec
