#include "src/io/convert.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "llmz/core/error.h"

namespace llmz::io {
namespace {

struct TypeRow {
  std::string_view name;
  size_t bytes;
  std::optional<DType> memory;
};
// In the order of FileDType.
constexpr std::array<TypeRow, 6> kTypes = {{{"F64", 8, DType::f64},
                                            {"F32", 4, DType::f32},
                                            {"BF16", 2, DType::bf16},
                                            {"F16", 2, std::nullopt},
                                            {"I32", 4, DType::i32},
                                            {"U8", 1, DType::u8}}};

const TypeRow& row(FileDType t) { return kTypes[static_cast<size_t>(t)]; }

bool floating(FileDType t) { return t != FileDType::i32 && t != FileDType::u8; }

/// IEEE 754 binary16.
struct half {
  uint16_t bits;
  explicit operator float() const {
    const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
    const uint32_t exponent = (bits >> 10) & 0x1fu, mantissa = bits & 0x3ffu;
    if (exponent == 0) {  // zero or subnormal: mantissa · 2^-24, exact in fp32
      const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
      return sign != 0 ? -magnitude : magnitude;
    }
    const uint32_t wide = exponent == 0x1f ? 0xffu : exponent + (127 - 15);
    return std::bit_cast<float>(sign | (wide << 23) | (mantissa << 13));
  }
};

template <class F>
void visit_file_float(FileDType t, F&& f) {
  switch (t) {
    case FileDType::f64: return f(double{});
    case FileDType::f32: return f(float{});
    case FileDType::bf16: return f(bf16{});
    case FileDType::f16: return f(half{});
    default: fail("{} is not a floating-point type", file_dtype_name(t));
  }
}

template <class From, class To>
To convert_one(From x) {
  if constexpr (std::is_same_v<From, double>) {
    if constexpr (std::is_same_v<To, bf16>) return bf16(static_cast<float>(x));
    if constexpr (!std::is_same_v<To, bf16>) return static_cast<To>(x);
  } else {
    return static_cast<To>(static_cast<float>(x));
  }
}

template <class From, class To>
void convert(const std::byte* in, std::byte* out, size_t count) {
  const auto* from = reinterpret_cast<const From*>(in);
  auto* to = reinterpret_cast<To*>(out);
  for (size_t i = 0; i < count; ++i) to[i] = convert_one<From, To>(from[i]);
}

}  // namespace

std::optional<FileDType> file_dtype_from_name(std::string_view name) {
  for (size_t i = 0; i < kTypes.size(); ++i) {
    if (kTypes[i].name == name) return static_cast<FileDType>(i);
  }
  return std::nullopt;
}

std::string_view file_dtype_name(FileDType t) { return row(t).name; }
size_t file_dtype_bytes(FileDType t) { return row(t).bytes; }

FileDType file_dtype_of(DType t) {
  for (size_t i = 0; i < kTypes.size(); ++i) {
    if (kTypes[i].memory == t) return static_cast<FileDType>(i);
  }
  fail("safetensors has no type for {}", dtype_name(t));
}

bool convertible(FileDType a, DType b) { return row(a).memory == b || (floating(a) && floating(file_dtype_of(b))); }

void decode(FileDType from, const std::byte* in, DType to, std::byte* out, size_t count) {
  if (row(from).memory == to) {
    std::memcpy(out, in, count * dtype_bytes(to));
    return;
  }
  visit_file_float(from, [&]<class From>(From) {
    visit_file_float(file_dtype_of(to), [&]<class To>(To) {
      if constexpr (!std::is_same_v<To, half>) convert<From, To>(in, out, count);
    });
  });
}

void encode(DType from, const std::byte* in, FileDType to, std::byte* out, size_t count) {
  check(row(to).memory.has_value(), "{} can be read but not written", row(to).name);
  decode(file_dtype_of(from), in, *row(to).memory, out, count);
}

}  // namespace llmz::io
