#pragma once

#include <cstdint>

#include "llmz/core/dtype.h"

namespace llmz::testing {

/// What a tensor of a rank holds in tests of collectives: whole numbers, so small that the sum of 16 ranks is exact in
/// bf16's 8 bits and in a byte, which tell rank, tensor and element apart.
inline double rank_value(int rank, size_t tensor, int64_t element) {
  return static_cast<double>((element * 7 + static_cast<int64_t>(tensor) * 3 + rank * 5) % 13);
}
inline double sum_of_rank_values(int ranks, size_t tensor, int64_t element) {
  double total = 0;
  for (int r = 0; r < ranks; ++r) total += rank_value(r, tensor, element);
  return total;
}

/// Element i of host memory of any type.
inline void set_element(void* data, DType t, int64_t i, double v) {
  switch (t) {
    case DType::f32: static_cast<float*>(data)[i] = static_cast<float>(v); break;
    case DType::f64: static_cast<double*>(data)[i] = v; break;
    case DType::bf16: static_cast<bf16*>(data)[i] = bf16(static_cast<float>(v)); break;
    case DType::i32: static_cast<int32_t*>(data)[i] = static_cast<int32_t>(v); break;
    case DType::u8: static_cast<uint8_t*>(data)[i] = static_cast<uint8_t>(v); break;
  }
}
inline double element(const void* data, DType t, int64_t i) {
  switch (t) {
    case DType::f32: return static_cast<double>(static_cast<const float*>(data)[i]);
    case DType::f64: return static_cast<const double*>(data)[i];
    case DType::bf16: return static_cast<double>(static_cast<float>(static_cast<const bf16*>(data)[i]));
    case DType::i32: return static_cast<const int32_t*>(data)[i];
    case DType::u8: return static_cast<const uint8_t*>(data)[i];
  }
  return 0;
}

}  // namespace llmz::testing
