#pragma once

#include <cstdint>
#include <functional>

#include "llmz/core/tensor.h"

namespace llmz::io {

/// Bytes that tensors are read and written in at a time.
constexpr int64_t kPieceBytes = int64_t{4} << 20;

/// A part of a tensor whose elements follow one another in row-major order: either whole rows or a part of one row.
/// A row is the last dimension; rows are counted over all the others.
struct Piece {
  int64_t row = 0, rows = 0;
  int64_t col = 0, cols = 0;
  int64_t numel() const { return rows * cols; }
};

/// [m,n] seen as [n,m]; Error for a tensor that is not a matrix.
Tensor transposed(const Tensor& matrix);

/// Calls `visit` for pieces of at most `max_elements` that together are the whole tensor, in row-major order.
void for_each_piece(const Shape& shape, int64_t max_elements, const std::function<void(const Piece&)>& visit);

/// dense[0..numel) = the piece's elements in row-major order. Any strides.
void gather(const Tensor& tensor, const Piece& piece, std::byte* dense);
/// The inverse of `gather`.
void scatter(const std::byte* dense, const Tensor& tensor, const Piece& piece);

}  // namespace llmz::io
