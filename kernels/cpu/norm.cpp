#include <algorithm>
#include <cmath>

#include "kernels/cpu/rows.h"
#include "kernels/cpu/twins.h"

namespace llmz::cpu {
namespace {

template <class Real>
LLMZ_INLINE Real sum_loop(const Real* x, int64_t n) {
  Real sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += x[i];
  return sum;
}

/// Σ (x − centre)².
template <class Real>
LLMZ_INLINE Real squares_loop(const Real* x, Real centre, int64_t n) {
  Real sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += (x[i] - centre) * (x[i] - centre);
  return sum;
}

template <class Real>
LLMZ_INLINE void normalize_loop(Real* xhat, const Real* x, Real mean, Real rstd, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) xhat[i] = (x[i] - mean) * rstd;
}

/// The one place where x̂ becomes the norm's output, in forward and again in norm_apply_gain.
template <class Real>
LLMZ_INLINE void gain_loop(Real* out, const Real* xhat, const Real* gain, const Real* bias, int64_t n) {
  if (bias == nullptr) {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) out[i] = xhat[i] * gain[i];
  } else {
#pragma GCC ivdep
    for (int64_t i = 0; i < n; ++i) out[i] = xhat[i] * gain[i] + bias[i];
  }
}

/// Sums over a row of dx̂ = dy·gain.
template <class Real>
struct RowSums {
  Real plain = 0;      ///< Σ dx̂
  Real with_xhat = 0;  ///< Σ dx̂·x̂
};

template <class Real>
LLMZ_INLINE RowSums<Real> row_sums_loop(const Real* dy, const Real* xhat, const Real* gain, int64_t n) {
  Real plain = 0, with_xhat = 0;
#pragma omp simd reduction(+ : plain, with_xhat)
  for (int64_t i = 0; i < n; ++i) {
    const Real d = dy[i] * gain[i];
    plain += d;
    with_xhat += d * xhat[i];
  }
  return {plain, with_xhat};
}

/// dx += rstd·(dx̂ − means.plain − x̂·means.with_xhat);  dgain += dy·x̂;  dbias += dy where present.
template <class Real>
LLMZ_INLINE void gradient_loop(Real* __restrict dx, Real* __restrict dgain, Real* __restrict dbias,
                               const Real* __restrict dy, const Real* __restrict xhat, const Real* __restrict gain,
                               RowSums<Real> means, Real rstd, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    dx[i] += rstd * (dy[i] * gain[i] - means.plain - xhat[i] * means.with_xhat);
    dgain[i] += dy[i] * xhat[i];
  }
  if (dbias == nullptr) return;
  for (int64_t i = 0; i < n; ++i) dbias[i] += dy[i];
}

template <class Real>
LLMZ_INLINE void accumulate_loop(Real* __restrict sum, const Real* __restrict x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) sum[i] += x[i];
}

LLMZ_SIMD_CLONES float row_sum(const float* x, int64_t n) { return sum_loop(x, n); }
double row_sum(const double* x, int64_t n) { return sum_loop(x, n); }

LLMZ_SIMD_CLONES float row_squares(const float* x, float centre, int64_t n) { return squares_loop(x, centre, n); }
double row_squares(const double* x, double centre, int64_t n) { return squares_loop(x, centre, n); }

LLMZ_SIMD_CLONES void normalize_row(float* xhat, const float* x, float mean, float rstd, int64_t n) {
  normalize_loop(xhat, x, mean, rstd, n);
}
void normalize_row(double* xhat, const double* x, double mean, double rstd, int64_t n) {
  normalize_loop(xhat, x, mean, rstd, n);
}

LLMZ_SIMD_CLONES void gain_row(float* out, const float* xhat, const float* gain, const float* bias, int64_t n) {
  gain_loop(out, xhat, gain, bias, n);
}
void gain_row(double* out, const double* xhat, const double* gain, const double* bias, int64_t n) {
  gain_loop(out, xhat, gain, bias, n);
}

LLMZ_SIMD_CLONES RowSums<float> row_sums(const float* dy, const float* xhat, const float* gain, int64_t n) {
  return row_sums_loop(dy, xhat, gain, n);
}
RowSums<double> row_sums(const double* dy, const double* xhat, const double* gain, int64_t n) {
  return row_sums_loop(dy, xhat, gain, n);
}

LLMZ_SIMD_CLONES void gradient_row(float* dx, float* dgain, float* dbias, const float* dy, const float* xhat,
                                   const float* gain, RowSums<float> means, float rstd, int64_t n) {
  gradient_loop(dx, dgain, dbias, dy, xhat, gain, means, rstd, n);
}
void gradient_row(double* dx, double* dgain, double* dbias, const double* dy, const double* xhat, const double* gain,
                  RowSums<double> means, double rstd, int64_t n) {
  gradient_loop(dx, dgain, dbias, dy, xhat, gain, means, rstd, n);
}

LLMZ_SIMD_CLONES void accumulate_row(float* sum, const float* x, int64_t n) { accumulate_loop(sum, x, n); }
void accumulate_row(double* sum, const double* x, int64_t n) { accumulate_loop(sum, x, n); }

enum class Kind { rms, layer };

template <class Real>
void forward(Kind kind, Tensor out, Tensor xhat, Tensor rstd, Tensor x, Tensor gain, Tensor bias, float eps) {
  const int64_t rows = x.dim(0), width = x.dim(1);
  const Real over_width = Real(1) / static_cast<Real>(width);
  auto* const rstds = static_cast<Real*>(rstd.data);
#pragma omp parallel if (rows > kParallelChunks)
  {
    Operand<Real> in(x), hat(xhat), o(out), g(gain), b(bias);
#pragma omp for schedule(static)
    for (int64_t t = 0; t < rows; ++t) {
      Real mean = 0, squares = 0;
      if (kind == Kind::layer) {
        for_chunks_of_row(t, width, [&](const Chunk& c) { mean += row_sum(in.read(c), c.count); });
        mean *= over_width;
      }
      for_chunks_of_row(t, width, [&](const Chunk& c) { squares += row_squares(in.read(c), mean, c.count); });
      const Real r = Real(1) / std::sqrt(squares * over_width + static_cast<Real>(eps));
      rstds[t] = r;
      for_chunks_of_row(t, width, [&](const Chunk& c) {
        Real* h = hat.write(c);
        normalize_row(h, in.read(c), mean, r, c.count);
        hat.commit(c);
        const Chunk parameters{0, c.column, c.count};
        const Real* stored = hat.present() ? hat.read(c) : h;
        gain_row(o.write(c), stored, g.read(parameters), b.present() ? b.read(parameters) : nullptr, c.count);
        o.commit(c);
      });
    }
  }
}

/// Rows [begin, end): dx, and their share of dgain (and dbias, in the row's second half) into `partial`.
template <class Real>
struct BackwardBlock {
  Operand<Real>&dx, &dy, &xhat, &gain;
  const Real* rstd;
  const Real* known_sums;  ///< Σ dx̂·x̂ of each row where it is known, else null
  int64_t width;
  Kind kind;

  void run(int64_t begin, int64_t end, Real* partial) {
    std::fill_n(partial, kind == Kind::layer ? 2 * width : width, Real(0));
    for (int64_t t = begin; t < end; ++t) {
      RowSums<Real> means;
      for_chunks_of_row(t, width, [&](const Chunk& c) {
        const RowSums<Real> s = row_sums(dy.read(c), xhat.read(c), gain.read({0, c.column, c.count}), c.count);
        means.plain += s.plain;
        means.with_xhat += s.with_xhat;
      });
      if (known_sums != nullptr) means.with_xhat = known_sums[t];
      means.plain = kind == Kind::layer ? means.plain / static_cast<Real>(width) : Real(0);
      means.with_xhat /= static_cast<Real>(width);
      for_chunks_of_row(t, width, [&](const Chunk& c) {
        Real* const dbias = kind == Kind::layer ? partial + width + c.column : nullptr;
        gradient_row(dx.modify(c), partial + c.column, dbias, dy.read(c), xhat.read(c),
                     gain.read({0, c.column, c.count}), means, rstd[t], c.count);
        dx.commit(c);
      });
    }
  }
};

/// sum[H] += the blocks' partial sums in their order; `partial` is the first block's.
template <class Real>
void add_partials(Operand<Real>& sum, const Real* partial, int64_t pitch, int64_t blocks, const Chunk& c) {
  alignas(64) Real total[kChunk];
  std::copy_n(partial + c.column, c.count, total);
  for (int64_t b = 1; b < blocks; ++b) accumulate_row(total, partial + b * pitch + c.column, c.count);
  accumulate_row(sum.modify(c), total, c.count);
  sum.commit(c);
}

template <class Real>
void backward(Kind kind, Tensor dx, Tensor dgain, Tensor dbias, Tensor dy, Tensor xhat, Tensor rstd, Tensor gain,
              Tensor row_sums, Tensor workspace) {
  const int64_t rows = dx.dim(0), width = dx.dim(1), blocks = norm_blocks(rows);
  const int64_t pitch = workspace.dim(1);
  auto* const partials = static_cast<Real*>(workspace.data);
#pragma omp parallel if (rows > kParallelChunks)
  {
    Operand<Real> dx_rows(dx), dy_rows(dy), xhat_rows(xhat), gains(gain), gain_sum(dgain), bias_sum(dbias);
    BackwardBlock<Real> block{dx_rows,
                              dy_rows,
                              xhat_rows,
                              gains,
                              static_cast<const Real*>(rstd.data),
                              static_cast<const Real*>(row_sums.data),
                              width,
                              kind};
#pragma omp for schedule(static)
    for (int64_t b = 0; b < blocks; ++b) block.run(rows * b / blocks, rows * (b + 1) / blocks, partials + b * pitch);
    constexpr int64_t kColumns = 256;  // of the sums, a task
#pragma omp for schedule(static)
    for (int64_t column = 0; column < width; column += kColumns) {
      const Chunk c{0, column, std::min(kColumns, width - column)};
      add_partials(gain_sum, partials, pitch, blocks, c);
      if (kind == Kind::layer) add_partials(bias_sum, partials + width, pitch, blocks, c);
    }
  }
}

}  // namespace

/// Blocks of about 32 rows: enough to keep many threads busy, few enough that adding their sums costs little.
int64_t norm_blocks(int64_t rows) { return std::clamp<int64_t>(ceil_div(rows, 32), 1, 256); }

void rmsnorm_forward(Tensor out, Tensor xhat, Tensor rstd, Tensor x, Tensor gain, float eps) {
  with_compute_type(x.dtype, [&]<class Real>(Real) { forward<Real>(Kind::rms, out, xhat, rstd, x, gain, {}, eps); });
}

void layernorm_forward(Tensor out, Tensor xhat, Tensor rstd, Tensor x, Tensor gain, Tensor bias, float eps) {
  with_compute_type(x.dtype,
                    [&]<class Real>(Real) { forward<Real>(Kind::layer, out, xhat, rstd, x, gain, bias, eps); });
}

void norm_apply_gain(Tensor out, Tensor xhat, Tensor gain, Tensor bias) {
  const int64_t rows = out.dim(0), width = out.dim(1);
  with_compute_type(out.dtype, [&]<class Real>(Real) {
#pragma omp parallel if (rows > kParallelChunks)
    {
      Operand<Real> o(out), hat(xhat), g(gain), b(bias);
#pragma omp for schedule(static)
      for (int64_t t = 0; t < rows; ++t) {
        for_chunks_of_row(t, width, [&](const Chunk& c) {
          const Chunk parameters{0, c.column, c.count};
          gain_row(o.write(c), hat.read(c), g.read(parameters), b.present() ? b.read(parameters) : nullptr, c.count);
          o.commit(c);
        });
      }
    }
  });
}

void rmsnorm_backward(Tensor dx, Tensor dgain, Tensor dy, Tensor xhat, Tensor rstd, Tensor gain, Tensor row_sums,
                      Tensor workspace) {
  with_compute_type(dx.dtype, [&]<class Real>(Real) {
    backward<Real>(Kind::rms, dx, dgain, {}, dy, xhat, rstd, gain, row_sums, workspace);
  });
}

void layernorm_backward(Tensor dx, Tensor dgain, Tensor dbias, Tensor dy, Tensor xhat, Tensor rstd, Tensor gain,
                        Tensor row_sums, Tensor workspace) {
  with_compute_type(dx.dtype, [&]<class Real>(Real) {
    backward<Real>(Kind::layer, dx, dgain, dbias, dy, xhat, rstd, gain, row_sums, workspace);
  });
}

}  // namespace llmz::cpu
