#include <cstring>

#include "kernels/cpu/random_bits.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/twins.h"

namespace llmz::cpu {
namespace {

template <class To, class From>
LLMZ_INLINE void convert_loop(To* __restrict out, const From* __restrict in, int64_t n) {
  for (int64_t i = 0; i < n; ++i) store(out + i, static_cast<compute_t<To>>(load(in + i)));
}

template <class T>
LLMZ_INLINE void add_loop(T* y, const T* x, int64_t n) {
  LLMZ_IVDEP
  for (int64_t i = 0; i < n; ++i) store(y + i, load(y + i) + load(x + i));
}

template <class T>
LLMZ_INLINE compute_t<T> dot_loop(const T* a, const T* b, int64_t n) {
  compute_t<T> sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += load(a + i) * load(b + i);
  return sum;
}

template <class T>
LLMZ_INLINE compute_t<T> distance_loop(const T* a, const T* b, int64_t n) {
  compute_t<T> sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += (load(a + i) - load(b + i)) * (load(a + i) - load(b + i));
  return sum;
}

template <class T>
LLMZ_INLINE void scale_loop(T* x, compute_t<T> factor, int64_t n) {
  for (int64_t i = 0; i < n; ++i) store(x + i, load(x + i) * factor);
}

LLMZ_INLINE void round_at_random_loop(bf16* __restrict out, const float* __restrict in,
                                      const uint32_t* __restrict words, int64_t n) {
  for (int64_t i = 0; i < n; ++i) store_at_random(out + i, in[i], words[i]);
}

constexpr int64_t kRowsInBlock = 64;

template <class From>
void convert_from(void* out, DType to, const From* in, int64_t n) {
  if (to == dtype_of<From>::value) {
    std::memcpy(out, in, static_cast<size_t>(n) * sizeof(From));
    return;
  }
  if constexpr (!std::is_same_v<From, float>) {
    if (to == DType::f32) simd<convert_loop<float, From>, float>(static_cast<float*>(out), in, n);
  }
  if constexpr (!std::is_same_v<From, bf16>) {
    if (to == DType::bf16) simd<convert_loop<bf16, From>, bf16>(static_cast<bf16*>(out), in, n);
  }
  if constexpr (!std::is_same_v<From, double>) {
    if (to == DType::f64) simd<convert_loop<double, From>, double>(static_cast<double*>(out), in, n);
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
  const std::array tensors{y, x};
  with_row_type(tensors, [&]<class T>(T) {
    for_each_chunk<T>(tensors, [](auto& t, const Chunk& c) {
      simd<add_loop<T>>(t[0].modify(c), t[1].read(c), c.count);
      t[0].commit(c);
    });
  });
}

void row_dot(Tensor sums, Tensor a, Tensor b, float alpha, bool accumulate) {
  const int64_t rows = a.dim(0), width = a.dim(1);
  with_row_type(std::array{a, b}, [&]<class T>(T) {
    using Real = compute_t<T>;
    auto* const out = static_cast<Real*>(sums.data);
#pragma omp parallel if (a.numel() > kParallelElements)
    {
      Operand<T> left(a), right(b);
#pragma omp for schedule(static)
      for (int64_t t = 0; t < rows; ++t) {
        Real sum = 0;
        for_chunks_of_row(t, width, [&](const Chunk& c) {
          const Chunk other{b.rank() == 1 ? 0 : t, c.column, c.count};
          sum += simd<dot_loop<T>>(left.read(c), right.read(other), c.count);
        });
        out[t] = static_cast<Real>(alpha) * sum + (accumulate ? out[t] : Real(0));
      }
    }
  });
}

void set_identity(Tensor x) {
  fill(x, 0.0f);
  const float one = 1.0f;
  for (int64_t i = 0; i < x.dim(0); ++i) {
    auto* const at =
        static_cast<std::byte*>(x.data) + (i * x.stride(0) + i) * static_cast<int64_t>(dtype_bytes(x.dtype));
    convert(at, x.dtype, &one, DType::f32, 1);
  }
}

void row_means(Tensor x) {
  const int64_t rows = x.dim(0), width = x.dim(1);
  with_compute_type(x.dtype, [&]<class Real>(Real) {
#pragma omp parallel if (x.numel() > kParallelElements)
    {
      Operand<Real> row(x);
#pragma omp for schedule(static)
      for (int64_t t = 0; t < rows; ++t) {
        double sum = 0;
        for_chunks_of_row(t, width, [&](const Chunk& c) {
          const Real* values = row.read(c);
          for (int64_t i = 0; i < c.count; ++i) sum += static_cast<double>(values[i]);
        });
        const Real mean = static_cast<Real>(sum / static_cast<double>(width));
        for_chunks_of_row(t, width, [&](const Chunk& c) {
          std::fill_n(row.write(c), c.count, mean);
          row.commit(c);
        });
      }
    }
  });
}

int64_t row_blocks(Tensor t) {
  if (t.numel() == 0) return 1;
  return std::max<int64_t>(1, ceil_div(t.numel() / t.dim(t.rank() - 1), kRowsInBlock));
}

void difference_norms(Tensor norms, Tensor a, Tensor b, Tensor workspace) {
  const int64_t width = a.dim(a.rank() - 1), rows = width == 0 ? 0 : a.numel() / width, blocks = row_blocks(a);
  auto* const partial = workspace.as<double>();
  with_row_type(std::array{a, b}, [&]<class T>(T) {
#pragma omp parallel if (a.numel() > kParallelElements)
    {
      Operand<T> left(a), right(b);
#pragma omp for schedule(static)
      for (int64_t block = 0; block < blocks; ++block) {
        double difference = 0, whole = 0;
        for (int64_t t = block * kRowsInBlock; t < std::min(rows, (block + 1) * kRowsInBlock); ++t) {
          for_chunks_of_row(t, width, [&](const Chunk& c) {
            const T *x = left.read(c), *y = right.read(c);
            difference += static_cast<double>(simd<distance_loop<T>>(x, y, c.count));
            whole += static_cast<double>(simd<dot_loop<T>>(y, y, c.count));
          });
        }
        partial[2 * block] = difference;
        partial[2 * block + 1] = whole;
      }
    }
  });
  double* out = norms.as<double>();
  out[0] = out[1] = 0;
  for (int64_t i = 0; i < 2 * blocks; ++i) out[i % 2] += partial[i];
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

void round_stochastically(Tensor out, Tensor in, const RandomStream& stream, uint64_t first) {
  const int64_t width = out.dim(out.rank() - 1), rows = out.numel() / width;
#pragma omp parallel if (out.numel() > kParallelElements)
  {
    alignas(64) uint32_t buffer[kRandomWords];
    Operand<bf16> to(out);
    Operand<float> from(in);
#pragma omp for schedule(static)
    for (int64_t row = 0; row < rows; ++row) {
      for_chunks_of_row(row, width, [&](const Chunk& c) {
        const uint64_t begin = first + static_cast<uint64_t>(row * width + c.column);
        const uint32_t* words = random_bits(buffer, stream, begin, c.count);
        simd<round_at_random_loop>(to.write(c), from.read(c), words, c.count);
      });
    }
  }
}

void scale(Tensor x, double factor) {
  with_row_type(std::array{x}, [&]<class T>(T) {
    for_each_chunk<T>(std::array{x}, [factor](auto& t, const Chunk& c) {
      simd<scale_loop<T>>(t[0].modify(c), static_cast<compute_t<T>>(factor), c.count);
      t[0].commit(c);
    });
  });
}

void add_sum(Tensor total, Tensor x) {
  double sum = 0;
  with_compute_type(x.dtype, [&]<class Real>(Real) {
    Operand<Real> in(x);
    const int64_t width = x.dim(x.rank() - 1), rows = x.numel() / width;
    for (int64_t row = 0; row < rows; ++row) {
      for_chunks_of_row(row, width, [&](const Chunk& c) {
        const Real* values = in.read(c);
        for (int64_t i = 0; i < c.count; ++i) sum += static_cast<double>(values[i]);
      });
    }
  });
  *total.as<double>() += sum;
}

void fill(Tensor x, double value) {
  with_row_type(std::array{x}, [&]<class T>(T) {
    for_each_chunk<T>(std::array{x}, [value](auto& t, const Chunk& c) {
      std::fill_n(t[0].write(c), c.count, static_cast<T>(static_cast<compute_t<T>>(value)));
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
