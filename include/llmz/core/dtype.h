#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace llmz {

/// Element types. `f64` exists on the CPU only: whole models run in it for gradient checks.
enum class DType : uint8_t { f32, bf16, i32, u8, f64 };

constexpr size_t dtype_bytes(DType t) {
  switch (t) {
    case DType::f64: return 8;
    case DType::f32:
    case DType::i32: return 4;
    case DType::bf16: return 2;
    case DType::u8: return 1;
  }
  return 0;
}

std::string_view dtype_name(DType t);
/// Inverse of `dtype_name`; throws Error naming the known types.
DType dtype_from_name(std::string_view name);

/// Brain float: the upper half of an fp32. Storage only; arithmetic is done in fp32.
struct bf16 {
  uint16_t bits = 0;

  bf16() = default;
  /// Round to nearest, ties to even; NaN stays a (quiet) NaN.
  explicit bf16(float x) {
    const uint32_t u = std::bit_cast<uint32_t>(x);
    const uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    bits = static_cast<uint16_t>(x == x ? rounded : ((u >> 16) | 0x40u));
  }
  explicit operator float() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
};

template <class T>
struct dtype_of;
template <>
struct dtype_of<float> {
  static constexpr DType value = DType::f32;
};
template <>
struct dtype_of<double> {
  static constexpr DType value = DType::f64;
};
template <>
struct dtype_of<bf16> {
  static constexpr DType value = DType::bf16;
};
template <>
struct dtype_of<int32_t> {
  static constexpr DType value = DType::i32;
};
template <>
struct dtype_of<uint8_t> {
  static constexpr DType value = DType::u8;
};

}  // namespace llmz
