#include <cstring>

#include "kernels/cpu/rows.h"
#include "kernels/cpu/twins.h"

namespace llmz::cpu {
namespace {

template <class To, class From>
LLMZ_INLINE void convert_loop(To* __restrict out, const From* __restrict in, int64_t n) {
  for (int64_t i = 0; i < n; ++i) store(out + i, static_cast<compute_t<To>>(load(in + i)));
}

LLMZ_SIMD_CLONES void convert_row(float* out, const bf16* in, int64_t n) { convert_loop(out, in, n); }
LLMZ_SIMD_CLONES void convert_row(bf16* out, const float* in, int64_t n) { convert_loop(out, in, n); }
void convert_row(float* out, const double* in, int64_t n) { convert_loop(out, in, n); }
void convert_row(double* out, const float* in, int64_t n) { convert_loop(out, in, n); }
void convert_row(bf16* out, const double* in, int64_t n) { convert_loop(out, in, n); }
void convert_row(double* out, const bf16* in, int64_t n) { convert_loop(out, in, n); }

template <class Real>
LLMZ_INLINE void add_loop(Real* y, const Real* x, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) y[i] += x[i];
}

LLMZ_SIMD_CLONES void add_row(float* y, const float* x, int64_t n) { add_loop(y, x, n); }
void add_row(double* y, const double* x, int64_t n) { add_loop(y, x, n); }

template <class From>
void convert_from(void* out, DType to, const From* in, int64_t n) {
  if (to == dtype_of<From>::value) {
    std::memcpy(out, in, static_cast<size_t>(n) * sizeof(From));
    return;
  }
  if constexpr (!std::is_same_v<From, float>) {
    if (to == DType::f32) convert_row(static_cast<float*>(out), in, n);
  }
  if constexpr (!std::is_same_v<From, bf16>) {
    if (to == DType::bf16) convert_row(static_cast<bf16*>(out), in, n);
  }
  if constexpr (!std::is_same_v<From, double>) {
    if (to == DType::f64) convert_row(static_cast<double*>(out), in, n);
  }
}

}  // namespace

void convert(void* out, DType to, const void* in, DType from, int64_t n) {
  switch (from) {
    case DType::f32: convert_from(out, to, static_cast<const float*>(in), n); return;
    case DType::bf16: convert_from(out, to, static_cast<const bf16*>(in), n); return;
    case DType::f64: convert_from(out, to, static_cast<const double*>(in), n); return;
    case DType::i32:
    case DType::u8: std::memcpy(out, in, static_cast<size_t>(n) * dtype_bytes(from)); return;
  }
}

void add(Tensor y, Tensor x) {
  with_compute_type(y.dtype, [&]<class Real>(Real) {
    for_each_chunk<Real>(std::array{y, x}, [](auto& t, const Chunk& c) {
      add_row(t[0].modify(c), t[1].read(c), c.count);
      t[0].commit(c);
    });
  });
}

void copy(Tensor out, Tensor in) {
  const auto [to, from] = merge_dimensions(std::array{out, in});
  const ChunkGrid grid(to);
  const RowAddress to_address(to), from_address(from);
  const DType to_dtype = out.dtype, from_dtype = in.dtype;
#pragma omp parallel for schedule(static) if (grid.size() > kParallelChunks)
  for (int64_t i = 0; i < grid.size(); ++i) {
    const Chunk c = grid[i];
    convert(to_address.at(c.row, c.column), to_dtype, from_address.at(c.row, c.column), from_dtype, c.count);
  }
}

void fill(Tensor x, float value) {
  with_compute_type(x.dtype, [&]<class Real>(Real) {
    for_each_chunk<Real>(std::array{x}, [value](auto& t, const Chunk& c) {
      std::fill_n(t[0].write(c), c.count, static_cast<Real>(value));
      t[0].commit(c);
    });
  });
}

void fill_normal(Tensor x, const RandomStream& stream, uint64_t first, float stddev) {
  for_each_chunk<float>(std::array{x}, [&](auto& t, const Chunk& c) {
    const uint64_t begin = first + static_cast<uint64_t>(c.column);  // contiguous: one long row
    stream.fill_normal(t[0].write(c), begin, static_cast<uint64_t>(c.count), stddev);
    t[0].commit(c);
  });
}

}  // namespace llmz::cpu
