#include "src/io/pieces.h"

#include <algorithm>
#include <utility>

namespace llmz::io {
namespace {

/// A rectangle of elements with two strides.
template <class T>
struct Block {
  T* data;
  int64_t row_stride, col_stride;
};

/// In tiles, so that a transposition touches each cache line of either side once.
template <class T>
void copy_block(Block<const T> from, Block<T> to, int64_t rows, int64_t cols) {
  constexpr int64_t kTile = 32;
  if (from.col_stride == 1 && to.col_stride == 1) {
    for (int64_t r = 0; r < rows; ++r) {
      std::copy_n(from.data + r * from.row_stride, cols, to.data + r * to.row_stride);
    }
    return;
  }
  for (int64_t r0 = 0; r0 < rows; r0 += kTile) {
    for (int64_t c0 = 0; c0 < cols; c0 += kTile) {
      for (int64_t r = r0; r < std::min(rows, r0 + kTile); ++r) {
        for (int64_t c = c0; c < std::min(cols, c0 + kTile); ++c) {
          to.data[r * to.row_stride + c * to.col_stride] = from.data[r * from.row_stride + c * from.col_stride];
        }
      }
    }
  }
}

/// Where row `row` begins, in elements from the tensor's first.
int64_t row_offset(const Tensor& t, int64_t row) {
  int64_t offset = 0;
  for (int d = t.rank() - 2; d >= 0; --d) {
    offset += row % t.dim(d) * t.stride(d);
    row /= t.dim(d);
  }
  return offset;
}

/// Calls copy(element offset in the tensor, row stride, first row of the piece, rows) for runs of rows with one stride.
template <class F>
void for_each_run(const Tensor& t, const Piece& piece, F&& copy) {
  const int64_t inner = t.rank() >= 2 ? t.dim(t.rank() - 2) : 1;
  const int64_t stride = t.rank() >= 2 ? t.stride(t.rank() - 2) : 0;
  for (int64_t done = 0; done < piece.rows;) {
    const int64_t row = piece.row + done;
    const int64_t rows = std::min(piece.rows - done, inner - row % inner);
    copy(row_offset(t, row) + piece.col * t.stride(t.rank() - 1), stride, done, rows);
    done += rows;
  }
}

template <class F>
void visit_dtype(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f64: return f(double{});
    case DType::f32: return f(float{});
    case DType::bf16: return f(bf16{});
    case DType::i32: return f(int32_t{});
    case DType::u8: return f(uint8_t{});
  }
}

}  // namespace

Tensor transposed(const Tensor& matrix) {
  check(matrix.rank() == 2, "only a matrix can be transposed, not {}", matrix.shape.str());
  Tensor t = matrix;
  std::swap(t.shape[0], t.shape[1]);
  std::swap(t.strides[0], t.strides[1]);
  return t;
}

void for_each_piece(const Shape& shape, int64_t max_elements, const std::function<void(const Piece&)>& visit) {
  if (shape.numel() == 0) return;
  const int64_t cols = shape[shape.rank() - 1];
  const int64_t rows = shape.numel() / cols;
  const int64_t col_step = std::min(cols, max_elements);
  const int64_t row_step = std::max<int64_t>(1, max_elements / cols);
  for (int64_t row = 0; row < rows; row += row_step) {
    for (int64_t col = 0; col < cols; col += col_step) {
      visit({row, std::min(row_step, rows - row), col, std::min(col_step, cols - col)});
    }
  }
}

void gather(const Tensor& tensor, const Piece& piece, std::byte* dense) {
  visit_dtype(tensor.dtype, [&]<class T>(T) {
    for_each_run(tensor, piece, [&](int64_t offset, int64_t stride, int64_t row, int64_t rows) {
      const Block<const T> from{tensor.as<T>() + offset, stride, tensor.stride(tensor.rank() - 1)};
      const Block<T> to{reinterpret_cast<T*>(dense) + row * piece.cols, piece.cols, 1};
      copy_block<T>(from, to, rows, piece.cols);
    });
  });
}

void scatter(const std::byte* dense, const Tensor& tensor, const Piece& piece) {
  visit_dtype(tensor.dtype, [&]<class T>(T) {
    for_each_run(tensor, piece, [&](int64_t offset, int64_t stride, int64_t row, int64_t rows) {
      const Block<const T> from{reinterpret_cast<const T*>(dense) + row * piece.cols, piece.cols, 1};
      const Block<T> to{tensor.as<T>() + offset, stride, tensor.stride(tensor.rank() - 1)};
      copy_block<T>(from, to, rows, piece.cols);
    });
  });
}

}  // namespace llmz::io
