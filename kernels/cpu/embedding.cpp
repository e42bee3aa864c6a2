#include <algorithm>

#include "kernels/cpu/rows.h"
#include "kernels/cpu/twins.h"

namespace llmz::cpu {
namespace {

template <class Real>
LLMZ_INLINE void sum_loop(Real* out, const Real* a, const Real* b, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) out[i] = a[i] + b[i];
}

LLMZ_SIMD_CLONES void sum_row(float* out, const float* a, const float* b, int64_t n) { sum_loop(out, a, b, n); }
void sum_row(double* out, const double* a, const double* b, int64_t n) { sum_loop(out, a, b, n); }

/// Columns a thread owns at a time in backward: 128 bytes of fp32, so that two owners share no cache line.
constexpr int64_t kOwnedColumns = 32;

template <class Real>
void add_row_into(Operand<Real>& sum, int64_t row, const Real* values, Chunk c) {
  c.row = row;
  Real* s = sum.modify(c);
  sum_row(s, s, values, c.count);
  sum.commit(c);
}

}  // namespace

void embedding_forward(Tensor out, Tensor tokens, Tensor table, Tensor positions, int64_t seq_len,
                       int64_t position_offset) {
  const auto* ids = static_cast<const int32_t*>(tokens.data);
  const int64_t rows = out.dim(0), width = out.dim(1);
  with_compute_type(out.dtype, [&]<class Real>(Real) {
#pragma omp parallel if (rows > kParallelChunks)
    {
      Operand<Real> o(out), e(table), p(positions);
#pragma omp for schedule(static)
      for (int64_t t = 0; t < rows; ++t) {
        for_chunks_of_row(t, width, [&](const Chunk& c) {
          const Real* embedding = e.read({ids[t], c.column, c.count});
          if (p.present()) {
            const Real* position = p.read({position_offset + t % seq_len, c.column, c.count});
            sum_row(o.write(c), embedding, position, c.count);
          } else {
            std::copy_n(embedding, c.count, o.write(c));
          }
          o.commit(c);
        });
      }
    }
  });
}

void embedding_backward(Tensor dtable, Tensor dpositions, Tensor dout, Tensor tokens, int64_t seq_len) {
  const auto* ids = static_cast<const int32_t*>(tokens.data);
  const int64_t rows = dout.dim(0), width = dout.dim(1);
  const int64_t owned = ceil_div(width, kOwnedColumns);
  with_compute_type(dout.dtype, [&]<class Real>(Real) {
// A thread owns columns and walks all tokens in order: no two threads add to one element, and the order of additions
// is that of the tokens.
#pragma omp parallel
    {
      Operand<Real> table(dtable), positions(dpositions), gradient(dout);
      const auto [begin, end] = thread_share(owned);
      for (int64_t column = begin * kOwnedColumns; column < std::min(width, end * kOwnedColumns); column += kChunk) {
        const int64_t count = std::min({kChunk, width - column, end * kOwnedColumns - column});
        for (int64_t t = 0; t < rows; ++t) {
          const Chunk c{t, column, count};
          const Real* g = gradient.read(c);
          add_row_into(table, ids[t], g, c);
          if (positions.present()) add_row_into(positions, t % seq_len, g, c);
        }
      }
    }
  });
}

}  // namespace llmz::cpu
