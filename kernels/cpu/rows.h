#pragma once

// Tensors as the row kernels see them: rows of elements of one type, a chunk at a time. Where all tensors of an op are
// bf16, or all f32, its loops read and write that type in place (vec_math.h has load and store). What is stored in
// another type passes through a chunk-sized buffer on the stack, so a kernel is written once for every mixture.

#include <omp.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "kernels/cpu/vec_math.h"
#include "llmz/core/tensor.h"

namespace llmz::cpu {

/// Elements in a chunk: 4 KiB of fp32, so that a kernel's few operands stay together in the first-level cache.
constexpr int64_t kChunk = 1024;

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// out[i] = in[i] for n dense elements; between f32, bf16 and f64, rounding where it must (elementwise.cpp).
void convert(void* out, DType to, const void* in, DType from, int64_t n);

/// Calls f(Real{}) with the type that elements of `dtype` are computed in.
template <class F>
void with_compute_type(DType dtype, F&& f) {
  if (dtype == DType::f64) {
    f(double{});
  } else {
    f(float{});
  }
}

/// Calls f(T{}) with the type of elements that an op's loops take: double for f64, bf16 where all of the tensors are
/// (an absent one has no say), else float.
template <size_t N, class F>
void with_row_type(const std::array<Tensor, N>& tensors, F&& f) {
  const auto all = [&](DType dtype) {
    return std::all_of(tensors.begin(), tensors.end(),
                       [=](const Tensor& t) { return !t.present() || t.dtype == dtype; });
  };
  if (tensors[0].dtype == DType::f64) {
    f(double{});
  } else if (all(DType::bf16)) {
    f(bf16{});
  } else {
    f(float{});
  }
}

/// The same for two groups of tensors: f(T{}, U{}).
template <size_t N, size_t M, class F>
void with_row_types(const std::array<Tensor, N>& first, const std::array<Tensor, M>& second, F&& f) {
  with_row_type(first, [&]<class T>(T) {
    with_row_type(second, [&]<class U>(U) {
      if constexpr (std::is_same_v<compute_t<T>, compute_t<U>>) f(T{}, U{});  // f64 goes with nothing else
    });
  });
}

/// Elements [column, column + count) of one row.
struct Chunk {
  int64_t row = 0, column = 0, count = 0;
};

/// The element of a tensor with dense rows at (row, column), rows counted over all but the last dimension.
class RowAddress {
 public:
  explicit RowAddress(const Tensor& t) : data_(static_cast<std::byte*>(t.data)), bytes_(dtype_bytes(t.dtype)) {
    for (int i = t.rank() - 2; i >= 0; --i) {
      dims_[static_cast<size_t>(outer_)] = t.dim(i);
      strides_[static_cast<size_t>(outer_++)] = t.stride(i);
    }
  }
  std::byte* at(int64_t row, int64_t column) const {
    int64_t offset = column;
    for (int i = 0; i + 1 < outer_; ++i) {  // innermost of the outer dimensions first
      const int64_t next = row / dims_[static_cast<size_t>(i)];
      offset += (row - next * dims_[static_cast<size_t>(i)]) * strides_[static_cast<size_t>(i)];
      row = next;
    }
    if (outer_ > 0) offset += row * strides_[static_cast<size_t>(outer_ - 1)];
    return data_ + offset * static_cast<int64_t>(bytes_);
  }

 private:
  std::byte* data_;
  size_t bytes_;
  int outer_ = 0;
  std::array<int64_t, Shape::kMaxRank - 1> dims_{}, strides_{};
};

/// One tensor inside one thread's loop, as elements of type T. `read` gives a chunk's values; `write` and `modify` give
/// a place for new ones (undefined, and the present ones), which `commit` stores. An absent tensor may be written: the
/// values stay in the buffer. Pointers are good until the next call on the same operand.
template <class T>
class Operand {
 public:
  explicit Operand(const Tensor& t)
      : address_(t), dtype_(t.dtype), direct_(t.present() && t.dtype == dtype_of<T>::value), present_(t.present()) {}

  bool present() const { return present_; }
  const T* read(const Chunk& c) { return modify(c); }
  T* modify(const Chunk& c) {
    if (direct_) return place(c);
    convert(buffer_, dtype_of<T>::value, address_.at(c.row, c.column), dtype_, c.count);
    return buffer_;
  }
  T* write(const Chunk& c) { return direct_ ? place(c) : buffer_; }
  void commit(const Chunk& c) {
    if (direct_ || !present_) return;
    convert(address_.at(c.row, c.column), dtype_, buffer_, dtype_of<T>::value, c.count);
  }

 private:
  T* place(const Chunk& c) const { return reinterpret_cast<T*>(address_.at(c.row, c.column)); }

  RowAddress address_;
  DType dtype_;
  bool direct_, present_;
  alignas(64) T buffer_[kChunk];
};

/// The calling thread's share [begin, end) of n equal pieces of work, inside a parallel region.
inline std::pair<int64_t, int64_t> thread_share(int64_t n) {
  const int64_t threads = omp_get_num_threads(), self = omp_get_thread_num();
  return {n * self / threads, n * (self + 1) / threads};
}

/// Calls f(chunk) for each chunk of one row, left to right.
template <class F>
void for_chunks_of_row(int64_t row, int64_t width, F&& f) {
  for (int64_t column = 0; column < width; column += kChunk) f(Chunk{row, column, std::min(kChunk, width - column)});
}

/// All chunks of a tensor, numbered row by row.
class ChunkGrid {
 public:
  explicit ChunkGrid(const Tensor& t) : width_(t.dim(t.rank() - 1)), per_row_(ceil_div(width_, kChunk)) {
    size_ = t.numel() == 0 ? 0 : t.numel() / width_ * per_row_;
  }
  int64_t size() const { return size_; }
  Chunk operator[](int64_t i) const {
    const int64_t row = i / per_row_, column = (i - row * per_row_) * kChunk;
    return {row, column, std::min(kChunk, width_ - column)};
  }

 private:
  int64_t width_, per_row_, size_;
};

/// Drops dimension d + 1 of a tensor whose elements are dense across d and d + 1.
inline Tensor merge_dimension(const Tensor& t, int d) {
  Tensor merged = t;
  merged.shape = t.rank() == 2 ? Shape{0} : t.rank() == 3 ? Shape{0, 0} : Shape{0, 0, 0};
  for (int i = 0; i < merged.rank(); ++i) {
    const int from = i < d ? i : i + 1;
    merged.shape[i] = i == d ? t.dim(d) * t.dim(d + 1) : t.dim(from);
    merged.strides[static_cast<size_t>(i)] = t.stride(from);
  }
  return merged;
}

/// Merges neighbouring dimensions of same-shaped tensors wherever all of them are dense: contiguous tensors become
/// one long row.
template <size_t N>
std::array<Tensor, N> merge_dimensions(std::array<Tensor, N> tensors) {
  for (int d = tensors[0].rank() - 2; d >= 0; --d) {
    const bool dense = std::all_of(tensors.begin(), tensors.end(), [d](const Tensor& t) {
      return t.dim(d) == 1 || t.stride(d) == t.stride(d + 1) * t.dim(d + 1);
    });
    if (!dense) continue;
    for (Tensor& t : tensors) t = merge_dimension(t, d);
  }
  return tensors;
}

/// Below this many chunks one thread is quicker than waking the others.
constexpr int64_t kParallelChunks = 4;
constexpr int64_t kParallelElements = kParallelChunks * kChunk;

/// Cuts same-shaped tensors into chunks, deals them to the threads and calls f(operands, chunk) on each.
template <class T, size_t N, class F>
void for_each_chunk(const std::array<Tensor, N>& tensors, F&& f) {
  const std::array<Tensor, N> merged = merge_dimensions(tensors);
  const ChunkGrid grid(merged[0]);
#pragma omp parallel if (grid.size() > kParallelChunks)
  {
    auto operands = [&]<size_t... I>(std::index_sequence<I...>) {
      return std::array<Operand<T>, N>{Operand<T>(merged[I])...};
    }
    (std::make_index_sequence<N>{});
#pragma omp for schedule(static)
    for (int64_t i = 0; i < grid.size(); ++i) f(operands, grid[i]);
  }
}

}  // namespace llmz::cpu
