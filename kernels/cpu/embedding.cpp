#include <algorithm>

#include "kernels/cpu/rows.h"
#include "kernels/cpu/twins.h"

namespace llmz::cpu {
namespace {

template <class T>
LLMZ_INLINE void sum_loop(T* __restrict out, const T* __restrict a, const T* __restrict b, int64_t n) {
  for (int64_t i = 0; i < n; ++i) store(out + i, load(a + i) + load(b + i));
}

template <class Sum, class T>
LLMZ_INLINE void add_loop(Sum* __restrict sum, const T* __restrict x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) store(sum + i, load(sum + i) + load(x + i));
}

template <class T>
void forward(const Tensor& out, const Tensor& tokens, const Tensor& table, const Tensor& positions, int64_t seq_len,
             int64_t position_offset) {
  const auto* ids = static_cast<const int32_t*>(tokens.data);
  const int64_t rows = out.dim(0), width = out.dim(1);
#pragma omp parallel if (rows > kParallelChunks)
  {
    Operand<T> o(out), e(table), p(positions);
#pragma omp for schedule(static)
    for (int64_t t = 0; t < rows; ++t) {
      for_chunks_of_row(t, width, [&](const Chunk& c) {
        const T* embedding = e.read({ids[t], c.column, c.count});
        if (p.present()) {
          simd<sum_loop<T>>(o.write(c), embedding, p.read({position_offset + t % seq_len, c.column, c.count}), c.count);
        } else {
          std::copy_n(embedding, c.count, o.write(c));
        }
        o.commit(c);
      });
    }
  }
}

/// Columns a thread owns at a time in backward: 128 bytes of fp32, so that two owners share no cache line.
constexpr int64_t kOwnedColumns = 32;

template <class Sum, class T>
void add_row_into(Operand<Sum>& sum, int64_t row, const T* values, Chunk c) {
  c.row = row;
  simd<add_loop<Sum, T>, Sum>(sum.modify(c), values, c.count);
  sum.commit(c);
}

/// A thread owns columns and walks all tokens in order: no two threads add to one element, and the order of additions
/// is that of the tokens.
template <class Sum, class T>
void backward(const Tensor& dtable, const Tensor& dpositions, const Tensor& dout, const Tensor& tokens,
              int64_t seq_len) {
  const auto* ids = static_cast<const int32_t*>(tokens.data);
  const int64_t rows = dout.dim(0), width = dout.dim(1);
  const int64_t owned = ceil_div(width, kOwnedColumns);
#pragma omp parallel
  {
    Operand<Sum> table(dtable), positions(dpositions);
    Operand<T> gradient(dout);
    const std::pair<int64_t, int64_t> share = thread_share(owned);
    const int64_t end = std::min(width, share.second * kOwnedColumns);
    for (int64_t column = share.first * kOwnedColumns; column < end; column += kChunk) {
      for (int64_t t = 0; t < rows; ++t) {
        const Chunk c{t, column, std::min(kChunk, end - column)};
        const T* g = gradient.read(c);
        add_row_into(table, ids[t], g, c);
        if (positions.present()) add_row_into(positions, t % seq_len, g, c);
      }
    }
  }
}

}  // namespace

void embedding_forward(Tensor out, Tensor tokens, Tensor table, Tensor positions, int64_t seq_len,
                       int64_t position_offset) {
  with_row_type(std::array{out, table, positions},
                [&]<class T>(T) { forward<T>(out, tokens, table, positions, seq_len, position_offset); });
}

void embedding_backward(Tensor dtable, Tensor dpositions, Tensor dout, Tensor tokens, int64_t seq_len) {
  with_row_types(std::array{dtable, dpositions}, std::array{dout},
                 [&]<class Sum, class T>(Sum, T) { backward<Sum, T>(dtable, dpositions, dout, tokens, seq_len); });
}

}  // namespace llmz::cpu
