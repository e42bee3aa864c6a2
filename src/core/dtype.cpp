#include "llmz/core/dtype.h"

#include "llmz/core/error.h"

namespace llmz {

std::string_view dtype_name(DType t) {
  switch (t) {
    case DType::f32: return "f32";
    case DType::bf16: return "bf16";
    case DType::i32: return "i32";
    case DType::u8: return "u8";
    case DType::f64: return "f64";
  }
  return "?";
}

DType dtype_from_name(std::string_view name) {
  for (DType t : {DType::f32, DType::bf16, DType::i32, DType::u8, DType::f64}) {
    if (dtype_name(t) == name) return t;
  }
  fail("unknown dtype '{}'; known: f32, bf16, i32, u8, f64", name);
}

}  // namespace llmz
