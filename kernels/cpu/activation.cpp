#include "kernels/cpu/rows.h"
#include "kernels/cpu/twins.h"

namespace llmz::cpu {
namespace {

// Outputs may stand in the place of inputs of the same index, hence LLMZ_IVDEP instead of __restrict.

template <class T>
LLMZ_INLINE void swiglu_loop(T* out, const T* gate, const T* up, int64_t n) {
  LLMZ_IVDEP
  for (int64_t i = 0; i < n; ++i) {
    const compute_t<T> z = load(gate + i);
    store(out + i, z * sigmoid(z) * load(up + i));
  }
}

/// silu'(z) = σ(z)(1 + z(1 − σ(z))).
template <class T>
LLMZ_INLINE void swiglu_gradient_loop(T* dgate, T* dup, const T* dout, const T* gate, const T* up, int64_t n) {
  using Real = compute_t<T>;
  LLMZ_IVDEP
  for (int64_t i = 0; i < n; ++i) {
    const Real z = load(gate + i), u = load(up + i), d = load(dout + i);
    const Real s = sigmoid(z);
    store(dgate + i, d * u * (s * (Real(1) + z * (Real(1) - s))));
    store(dup + i, d * (z * s));
  }
}

/// Σ dgate·gate + dup·up, from the same expressions as swiglu_gradient_loop's.
template <class T>
LLMZ_INLINE compute_t<T> swiglu_dots_loop(const T* dout, const T* gate, const T* up, int64_t n) {
  using Real = compute_t<T>;
  Real sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) {
    const Real z = load(gate + i), s = sigmoid(z);
    sum += load(dout + i) * load(up + i) * z * (s * (Real(1) + z * (Real(1) - s)) + s);
  }
  return sum;
}

constexpr double kRootTwoOverPi = 0.79788456080286535588;
constexpr double kCubic = 0.044715;

template <class T>
LLMZ_INLINE void gelu_loop(T* out, const T* x, int64_t n) {
  using Real = compute_t<T>;
  LLMZ_IVDEP
  for (int64_t i = 0; i < n; ++i) {
    const Real z = load(x + i);
    const Real t = tanh(Real(kRootTwoOverPi) * (z + Real(kCubic) * z * z * z));
    store(out + i, Real(0.5) * z * (Real(1) + t));
  }
}

/// gelu'(x) = ½(1 + t) + ½x(1 − t²)·√(2/π)(1 + 3·0.044715x²) with t the forward's tanh.
template <class T>
LLMZ_INLINE void gelu_gradient_loop(T* dx, const T* dout, const T* x, int64_t n) {
  using Real = compute_t<T>;
  LLMZ_IVDEP
  for (int64_t i = 0; i < n; ++i) {
    const Real z = load(x + i);
    const Real t = tanh(Real(kRootTwoOverPi) * (z + Real(kCubic) * z * z * z));
    const Real inner = Real(kRootTwoOverPi) * (Real(1) + Real(3 * kCubic) * z * z);
    store(dx + i, load(dout + i) * (Real(0.5) * (Real(1) + t) + Real(0.5) * z * (Real(1) - t * t) * inner));
  }
}

/// Σ dx·x with dx as gelu_gradient_loop makes it.
template <class T>
LLMZ_INLINE compute_t<T> gelu_dots_loop(const T* dout, const T* x, int64_t n) {
  using Real = compute_t<T>;
  Real sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) {
    const Real z = load(x + i);
    const Real t = tanh(Real(kRootTwoOverPi) * (z + Real(kCubic) * z * z * z));
    const Real inner = Real(kRootTwoOverPi) * (Real(1) + Real(3 * kCubic) * z * z);
    sum += load(dout + i) * (Real(0.5) * (Real(1) + t) + Real(0.5) * z * (Real(1) - t * t) * inner) * z;
  }
  return sum;
}

/// As for_each_chunk, but row by row, with a sum over each: f(operands, chunk) returns its part and writes.
template <class T, size_t N, class F>
void for_each_row(const std::array<Tensor, N>& tensors, Tensor row_sums, F&& f) {
  using Real = compute_t<T>;
  const int64_t rows = tensors[0].dim(0), width = tensors[0].dim(1);
  auto* const sums = static_cast<Real*>(row_sums.data);
#pragma omp parallel if (tensors[0].numel() > kParallelElements)
  {
    auto operands = [&]<size_t... I>(std::index_sequence<I...>) {
      return std::array<Operand<T>, N>{Operand<T>(tensors[I])...};
    }
    (std::make_index_sequence<N>{});
#pragma omp for schedule(static)
    for (int64_t t = 0; t < rows; ++t) {
      Real sum = 0;
      for_chunks_of_row(t, width, [&](const Chunk& c) { sum += f(operands, c); });
      sums[t] = sum;
    }
  }
}

}  // namespace

void swiglu_forward(Tensor out, Tensor gate, Tensor up) {
  const std::array tensors{out, gate, up};
  with_row_type(tensors, [&]<class T>(T) {
    for_each_chunk<T>(tensors, [](auto& t, const Chunk& c) {
      simd<swiglu_loop<T>>(t[0].write(c), t[1].read(c), t[2].read(c), c.count);
      t[0].commit(c);
    });
  });
}

void swiglu_backward(Tensor dgate, Tensor dup, Tensor dout, Tensor gate, Tensor up, Tensor row_sums) {
  const std::array tensors{dgate, dup, dout, gate, up};
  with_row_type(tensors, [&]<class T>(T) {
    const auto chunk = [](auto& t, const Chunk& c) {
      simd<swiglu_gradient_loop<T>>(t[0].write(c), t[1].write(c), t[2].read(c), t[3].read(c), t[4].read(c), c.count);
      t[0].commit(c);
      t[1].commit(c);
    };
    if (!row_sums.present()) return for_each_chunk<T>(tensors, chunk);
    for_each_row<T>(tensors, row_sums, [&](auto& t, const Chunk& c) {
      const auto sum = simd<swiglu_dots_loop<T>>(t[2].read(c), t[3].read(c), t[4].read(c), c.count);
      chunk(t, c);
      return sum;
    });
  });
}

void gelu_forward(Tensor out, Tensor x) {
  const std::array tensors{out, x};
  with_row_type(tensors, [&]<class T>(T) {
    for_each_chunk<T>(tensors, [](auto& t, const Chunk& c) {
      simd<gelu_loop<T>>(t[0].write(c), t[1].read(c), c.count);
      t[0].commit(c);
    });
  });
}

void gelu_backward(Tensor dx, Tensor dout, Tensor x, Tensor row_sums) {
  const std::array tensors{dx, dout, x};
  with_row_type(tensors, [&]<class T>(T) {
    const auto chunk = [](auto& t, const Chunk& c) {
      simd<gelu_gradient_loop<T>>(t[0].write(c), t[1].read(c), t[2].read(c), c.count);
      t[0].commit(c);
    };
    if (!row_sums.present()) return for_each_chunk<T>(tensors, chunk);
    for_each_row<T>(tensors, row_sums, [&](auto& t, const Chunk& c) {
      const auto sum = simd<gelu_dots_loop<T>>(t[1].read(c), t[2].read(c), c.count);
      chunk(t, c);
      return sum;
    });
  });
}

}  // namespace llmz::cpu
