#include "kernels/cpu/rows.h"
#include "kernels/cpu/twins.h"

namespace llmz::cpu {
namespace {

// Outputs may stand in the place of inputs of the same index, hence `ivdep` instead of __restrict.

template <class Real>
LLMZ_INLINE void swiglu_loop(Real* out, const Real* gate, const Real* up, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) out[i] = gate[i] * sigmoid(gate[i]) * up[i];
}

/// silu'(z) = σ(z)(1 + z(1 − σ(z))).
template <class Real>
LLMZ_INLINE void swiglu_gradient_loop(Real* dgate, Real* dup, const Real* dout, const Real* gate, const Real* up,
                                      int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) {
    const Real z = gate[i], u = up[i], d = dout[i];
    const Real s = sigmoid(z);
    dgate[i] = d * u * (s * (Real(1) + z * (Real(1) - s)));
    dup[i] = d * (z * s);
  }
}

/// Σ dgate·gate + dup·up, from the same expressions as swiglu_gradient_loop's.
template <class Real>
LLMZ_INLINE Real swiglu_dots_loop(const Real* dout, const Real* gate, const Real* up, int64_t n) {
  Real sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) {
    const Real z = gate[i], s = sigmoid(z);
    sum += dout[i] * up[i] * z * (s * (Real(1) + z * (Real(1) - s)) + s);
  }
  return sum;
}

constexpr double kRootTwoOverPi = 0.79788456080286535588;
constexpr double kCubic = 0.044715;

template <class Real>
LLMZ_INLINE void gelu_loop(Real* out, const Real* x, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) {
    const Real z = x[i];
    const Real t = tanh(Real(kRootTwoOverPi) * (z + Real(kCubic) * z * z * z));
    out[i] = Real(0.5) * z * (Real(1) + t);
  }
}

/// gelu'(x) = ½(1 + t) + ½x(1 − t²)·√(2/π)(1 + 3·0.044715x²) with t the forward's tanh.
template <class Real>
LLMZ_INLINE void gelu_gradient_loop(Real* dx, const Real* dout, const Real* x, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) {
    const Real z = x[i];
    const Real t = tanh(Real(kRootTwoOverPi) * (z + Real(kCubic) * z * z * z));
    const Real inner = Real(kRootTwoOverPi) * (Real(1) + Real(3 * kCubic) * z * z);
    dx[i] = dout[i] * (Real(0.5) * (Real(1) + t) + Real(0.5) * z * (Real(1) - t * t) * inner);
  }
}

/// Σ dx·x with dx as gelu_gradient_loop makes it.
template <class Real>
LLMZ_INLINE Real gelu_dots_loop(const Real* dout, const Real* x, int64_t n) {
  Real sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) {
    const Real z = x[i];
    const Real t = tanh(Real(kRootTwoOverPi) * (z + Real(kCubic) * z * z * z));
    const Real inner = Real(kRootTwoOverPi) * (Real(1) + Real(3 * kCubic) * z * z);
    sum += dout[i] * (Real(0.5) * (Real(1) + t) + Real(0.5) * z * (Real(1) - t * t) * inner) * z;
  }
  return sum;
}

LLMZ_SIMD_CLONES float swiglu_dots(const float* dout, const float* gate, const float* up, int64_t n) {
  return swiglu_dots_loop(dout, gate, up, n);
}
double swiglu_dots(const double* dout, const double* gate, const double* up, int64_t n) {
  return swiglu_dots_loop(dout, gate, up, n);
}

LLMZ_SIMD_CLONES float gelu_dots(const float* dout, const float* x, int64_t n) { return gelu_dots_loop(dout, x, n); }
double gelu_dots(const double* dout, const double* x, int64_t n) { return gelu_dots_loop(dout, x, n); }

LLMZ_SIMD_CLONES void swiglu_row(float* out, const float* gate, const float* up, int64_t n) {
  swiglu_loop(out, gate, up, n);
}
void swiglu_row(double* out, const double* gate, const double* up, int64_t n) { swiglu_loop(out, gate, up, n); }

LLMZ_SIMD_CLONES void swiglu_gradient_row(float* dgate, float* dup, const float* dout, const float* gate,
                                          const float* up, int64_t n) {
  swiglu_gradient_loop(dgate, dup, dout, gate, up, n);
}
void swiglu_gradient_row(double* dgate, double* dup, const double* dout, const double* gate, const double* up,
                         int64_t n) {
  swiglu_gradient_loop(dgate, dup, dout, gate, up, n);
}

LLMZ_SIMD_CLONES void gelu_row(float* out, const float* x, int64_t n) { gelu_loop(out, x, n); }
void gelu_row(double* out, const double* x, int64_t n) { gelu_loop(out, x, n); }

LLMZ_SIMD_CLONES void gelu_gradient_row(float* dx, const float* dout, const float* x, int64_t n) {
  gelu_gradient_loop(dx, dout, x, n);
}
void gelu_gradient_row(double* dx, const double* dout, const double* x, int64_t n) {
  gelu_gradient_loop(dx, dout, x, n);
}

/// As for_each_chunk, but row by row, with a sum over each: f(operands, chunk) returns its part and writes.
template <class Real, size_t N, class F>
void for_each_row(const std::array<Tensor, N>& tensors, Tensor row_sums, F&& f) {
  const int64_t rows = tensors[0].dim(0), width = tensors[0].dim(1);
  auto* const sums = static_cast<Real*>(row_sums.data);
#pragma omp parallel if (tensors[0].numel() > kParallelElements)
  {
    auto operands = [&]<size_t... I>(std::index_sequence<I...>) {
      return std::array<Operand<Real>, N>{Operand<Real>(tensors[I])...};
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
  with_compute_type(gate.dtype, [&]<class Real>(Real) {
    for_each_chunk<Real>(std::array{out, gate, up}, [](auto& t, const Chunk& c) {
      swiglu_row(t[0].write(c), t[1].read(c), t[2].read(c), c.count);
      t[0].commit(c);
    });
  });
}

void swiglu_backward(Tensor dgate, Tensor dup, Tensor dout, Tensor gate, Tensor up, Tensor row_sums) {
  with_compute_type(gate.dtype, [&]<class Real>(Real) {
    const std::array tensors{dgate, dup, dout, gate, up};
    const auto chunk = [](auto& t, const Chunk& c) {
      swiglu_gradient_row(t[0].write(c), t[1].write(c), t[2].read(c), t[3].read(c), t[4].read(c), c.count);
      t[0].commit(c);
      t[1].commit(c);
    };
    if (!row_sums.present()) return for_each_chunk<Real>(tensors, chunk);
    for_each_row<Real>(tensors, row_sums, [&](auto& t, const Chunk& c) {
      const Real sum = swiglu_dots(t[2].read(c), t[3].read(c), t[4].read(c), c.count);
      chunk(t, c);
      return sum;
    });
  });
}

void gelu_forward(Tensor out, Tensor x) {
  with_compute_type(x.dtype, [&]<class Real>(Real) {
    for_each_chunk<Real>(std::array{out, x}, [](auto& t, const Chunk& c) {
      gelu_row(t[0].write(c), t[1].read(c), c.count);
      t[0].commit(c);
    });
  });
}

void gelu_backward(Tensor dx, Tensor dout, Tensor x, Tensor row_sums) {
  with_compute_type(x.dtype, [&]<class Real>(Real) {
    const std::array tensors{dx, dout, x};
    const auto chunk = [](auto& t, const Chunk& c) {
      gelu_gradient_row(t[0].write(c), t[1].read(c), t[2].read(c), c.count);
      t[0].commit(c);
    };
    if (!row_sums.present()) return for_each_chunk<Real>(tensors, chunk);
    for_each_row<Real>(tensors, row_sums, [&](auto& t, const Chunk& c) {
      const Real sum = gelu_dots(t[1].read(c), t[2].read(c), c.count);
      chunk(t, c);
      return sum;
    });
  });
}

}  // namespace llmz::cpu
