#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "llmz/core/dtype.h"

namespace llmz::io {

/// Element types of the file format that can be read into memory; F16 has no counterpart there.
enum class FileDType : uint8_t { f64, f32, bf16, f16, i32, u8 };

std::optional<FileDType> file_dtype_from_name(std::string_view name);  ///< "F32" → f32; nothing for others
std::string_view file_dtype_name(FileDType t);
size_t file_dtype_bytes(FileDType t);
FileDType file_dtype_of(DType t);

/// True when elements of one type can become elements of the other: equal types, and any two floating-point types.
bool convertible(FileDType a, DType b);

/// count elements. To fewer bits: round to nearest, ties to even. Buffers must not overlap.
void decode(FileDType from, const std::byte* in, DType to, std::byte* out, size_t count);
/// `to` may not be f16.
void encode(DType from, const std::byte* in, FileDType to, std::byte* out, size_t count);

}  // namespace llmz::io
