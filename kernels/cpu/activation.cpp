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

}  // namespace

void swiglu_forward(Tensor out, Tensor gate, Tensor up) {
  with_compute_type(gate.dtype, [&]<class Real>(Real) {
    for_each_chunk<Real>(std::array{out, gate, up}, [](auto& t, const Chunk& c) {
      swiglu_row(t[0].write(c), t[1].read(c), t[2].read(c), c.count);
      t[0].commit(c);
    });
  });
}

void swiglu_backward(Tensor dgate, Tensor dup, Tensor dout, Tensor gate, Tensor up) {
  with_compute_type(gate.dtype, [&]<class Real>(Real) {
    for_each_chunk<Real>(std::array{dgate, dup, dout, gate, up}, [](auto& t, const Chunk& c) {
      swiglu_gradient_row(t[0].write(c), t[1].write(c), t[2].read(c), t[3].read(c), t[4].read(c), c.count);
      t[0].commit(c);
      t[1].commit(c);
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

void gelu_backward(Tensor dx, Tensor dout, Tensor x) {
  with_compute_type(x.dtype, [&]<class Real>(Real) {
    for_each_chunk<Real>(std::array{dx, dout, x}, [](auto& t, const Chunk& c) {
      gelu_gradient_row(t[0].write(c), t[1].read(c), t[2].read(c), c.count);
      t[0].commit(c);
    });
  });
}

}  // namespace llmz::cpu
