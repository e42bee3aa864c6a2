#include <algorithm>
#include <cmath>

#include "kernels/cpu/rows.h"
#include "kernels/cpu/twins.h"

namespace llmz::cpu {
namespace {

template <class T>
LLMZ_INLINE compute_t<T> sum_loop(const T* x, int64_t n) {
  compute_t<T> sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += load(x + i);
  return sum;
}

/// Σ (x − centre)².
template <class T>
LLMZ_INLINE compute_t<T> squares_loop(const T* x, compute_t<T> centre, int64_t n) {
  compute_t<T> sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += (load(x + i) - centre) * (load(x + i) - centre);
  return sum;
}

template <class Hat, class T>
LLMZ_INLINE void normalize_loop(Hat* xhat, const T* x, compute_t<T> mean, compute_t<T> rstd, int64_t n) {
  LLMZ_IVDEP
  for (int64_t i = 0; i < n; ++i) store(xhat + i, (load(x + i) - mean) * rstd);
}

/// The one place where x̂ becomes the norm's output, in forward and again in norm_apply_gain.
template <class T, class Hat, class G>
LLMZ_INLINE void gain_loop(T* out, const Hat* xhat, const G* gain, const G* bias, int64_t n) {
  if (bias == nullptr) {
    LLMZ_IVDEP
    for (int64_t i = 0; i < n; ++i) store(out + i, load(xhat + i) * load(gain + i));
  } else {
    LLMZ_IVDEP
    for (int64_t i = 0; i < n; ++i) store(out + i, load(xhat + i) * load(gain + i) + load(bias + i));
  }
}

/// Sums over a row of dx̂ = dy·gain.
template <class Real>
struct RowSums {
  Real plain = 0;      ///< Σ dx̂
  Real with_xhat = 0;  ///< Σ dx̂·x̂
};

template <class T, class G>
LLMZ_INLINE RowSums<compute_t<T>> row_sums_loop(const T* dy, const T* xhat, const G* gain, int64_t n) {
  compute_t<T> plain = 0, with_xhat = 0;
#pragma omp simd reduction(+ : plain, with_xhat)
  for (int64_t i = 0; i < n; ++i) {
    const compute_t<T> d = load(dy + i) * load(gain + i);
    plain += d;
    with_xhat += d * load(xhat + i);
  }
  return {plain, with_xhat};
}

/// dx += rstd·(dx̂ − means.plain − x̂·means.with_xhat);  dgain += dy·x̂;  dbias += dy where present.
template <class T, class G>
LLMZ_INLINE void gradient_loop(T* __restrict dx, compute_t<T>* __restrict dgain, compute_t<T>* __restrict dbias,
                               const T* __restrict dy, const T* __restrict xhat, const G* __restrict gain,
                               RowSums<compute_t<T>> means, compute_t<T> rstd, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const compute_t<T> d = load(dy + i), hat = load(xhat + i);
    store(dx + i, load(dx + i) + rstd * (d * load(gain + i) - means.plain - hat * means.with_xhat));
    dgain[i] += d * hat;
  }
  if (dbias == nullptr) return;
  for (int64_t i = 0; i < n; ++i) dbias[i] += load(dy + i);
}

template <class Real>
LLMZ_INLINE void accumulate_loop(Real* __restrict sum, const Real* __restrict x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) sum[i] += x[i];
}

enum class Kind { rms, layer };

/// x̂ and the output of one chunk. Without a place for x̂ it stays in the type of computation.
template <class T, class G>
struct ForwardChunk {
  Operand<T>&in, &hat, &out;
  Operand<G>&gain, &bias;

  void run(const Chunk& c, compute_t<T> mean, compute_t<T> rstd) {
    using Real = compute_t<T>;
    const Chunk parameters{0, c.column, c.count};
    const G* const g = gain.read(parameters);
    const G* const b = bias.present() ? bias.read(parameters) : nullptr;
    if (hat.present()) {
      simd<normalize_loop<T, T>>(hat.write(c), in.read(c), mean, rstd, c.count);
      hat.commit(c);
      simd<gain_loop<T, T, G>, T>(out.write(c), hat.read(c), g, b, c.count);
    } else {
      alignas(64) Real h[kChunk];
      simd<normalize_loop<Real, T>>(h, in.read(c), mean, rstd, c.count);
      simd<gain_loop<T, Real, G>, T>(out.write(c), h, g, b, c.count);
    }
    out.commit(c);
  }
};

template <class T, class G>
void forward(Kind kind, const Tensor& out, const Tensor& xhat, const Tensor& rstd, const Tensor& x, const Tensor& gain,
             const Tensor& bias, float eps) {
  using Real = compute_t<T>;
  const int64_t width = x.dim(x.rank() - 1), rows = x.numel() / width;
  const Real over_width = Real(1) / static_cast<Real>(width);
  auto* const rstds = static_cast<Real*>(rstd.data);
#pragma omp parallel if (rows > kParallelChunks)
  {
    Operand<T> in(x), hat(xhat), o(out);
    Operand<G> g(gain), b(bias);
    ForwardChunk<T, G> chunk{in, hat, o, g, b};
#pragma omp for schedule(static)
    for (int64_t t = 0; t < rows; ++t) {
      Real mean = 0, squares = 0;
      if (kind == Kind::layer) {
        for_chunks_of_row(t, width, [&](const Chunk& c) { mean += simd<sum_loop<T>>(in.read(c), c.count); });
        mean *= over_width;
      }
      for_chunks_of_row(t, width, [&](const Chunk& c) { squares += simd<squares_loop<T>>(in.read(c), mean, c.count); });
      const Real r = Real(1) / std::sqrt(squares * over_width + static_cast<Real>(eps));
      rstds[t] = r;
      for_chunks_of_row(t, width, [&](const Chunk& c) { chunk.run(c, mean, r); });
    }
  }
}

void forward(Kind kind, const Tensor& out, const Tensor& xhat, const Tensor& rstd, const Tensor& x, const Tensor& gain,
             const Tensor& bias, float eps) {
  with_row_types(std::array{x, xhat, out}, std::array{gain, bias},
                 [&]<class T, class G>(T, G) { forward<T, G>(kind, out, xhat, rstd, x, gain, bias, eps); });
}

/// Rows [begin, end): dx, and their share of dgain (and dbias, in the row's second half) into `partial`.
template <class T, class G>
struct BackwardBlock {
  using Real = compute_t<T>;
  Operand<T>&dx, &dy, &xhat;
  Operand<G>& gain;
  const Real* rstd;
  const Real* known_sums;  ///< Σ dx̂·x̂ of each row where it is known, else null
  int64_t width;
  Kind kind;

  void run(int64_t begin, int64_t end, Real* partial) {
    std::fill_n(partial, kind == Kind::layer ? 2 * width : width, Real(0));
    for (int64_t t = begin; t < end; ++t) {
      RowSums<Real> means;
      for_chunks_of_row(t, width, [&](const Chunk& c) {
        const RowSums<Real> s =
            simd<row_sums_loop<T, G>, T>(dy.read(c), xhat.read(c), gain.read({0, c.column, c.count}), c.count);
        means.plain += s.plain;
        means.with_xhat += s.with_xhat;
      });
      if (known_sums != nullptr) means.with_xhat = known_sums[t];
      means.plain = kind == Kind::layer ? means.plain / static_cast<Real>(width) : Real(0);
      means.with_xhat /= static_cast<Real>(width);
      for_chunks_of_row(t, width, [&](const Chunk& c) {
        Real* const dbias = kind == Kind::layer ? partial + width + c.column : nullptr;
        simd<gradient_loop<T, G>, T>(dx.modify(c), partial + c.column, dbias, dy.read(c), xhat.read(c),
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
  for (int64_t b = 1; b < blocks; ++b) {
    simd<accumulate_loop<Real>>(total, partial + b * pitch + c.column, c.count);
  }
  simd<accumulate_loop<Real>>(sum.modify(c), total, c.count);
  sum.commit(c);
}

template <class T, class G>
void backward(Kind kind, const Tensor& dx, const Tensor& dgain, const Tensor& dbias, const Tensor& dy,
              const Tensor& xhat, const Tensor& rstd, const Tensor& gain, const Tensor& row_sums,
              const Tensor& workspace) {
  using Real = compute_t<T>;
  const int64_t width = dx.dim(dx.rank() - 1), rows = dx.numel() / width, blocks = norm_blocks(rows);
  const int64_t pitch = workspace.dim(1);
  auto* const partials = static_cast<Real*>(workspace.data);
#pragma omp parallel if (rows > kParallelChunks)
  {
    Operand<T> dx_rows(dx), dy_rows(dy), xhat_rows(xhat);
    Operand<G> gains(gain);
    Operand<Real> gain_sum(dgain), bias_sum(dbias);
    BackwardBlock<T, G> block{dx_rows,
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

void backward(Kind kind, const Tensor& dx, const Tensor& dgain, const Tensor& dbias, const Tensor& dy,
              const Tensor& xhat, const Tensor& rstd, const Tensor& gain, const Tensor& row_sums,
              const Tensor& workspace) {
  with_row_types(std::array{dx, dy, xhat}, std::array{gain}, [&]<class T, class G>(T, G) {
    backward<T, G>(kind, dx, dgain, dbias, dy, xhat, rstd, gain, row_sums, workspace);
  });
}

}  // namespace

/// Blocks of about 32 rows: enough to keep many threads busy, few enough that adding their sums costs little.
int64_t norm_blocks(int64_t rows) { return std::clamp<int64_t>(ceil_div(rows, 32), 1, 256); }

void rmsnorm_forward(Tensor out, Tensor xhat, Tensor rstd, Tensor x, Tensor gain, float eps) {
  forward(Kind::rms, out, xhat, rstd, x, gain, {}, eps);
}

void layernorm_forward(Tensor out, Tensor xhat, Tensor rstd, Tensor x, Tensor gain, Tensor bias, float eps) {
  forward(Kind::layer, out, xhat, rstd, x, gain, bias, eps);
}

void norm_apply_gain(Tensor out, Tensor xhat, Tensor gain, Tensor bias) {
  const int64_t rows = out.dim(0), width = out.dim(1);
  with_row_types(std::array{out, xhat}, std::array{gain, bias}, [&]<class T, class G>(T, G) {
#pragma omp parallel if (rows > kParallelChunks)
    {
      Operand<T> o(out), hat(xhat);
      Operand<G> g(gain), b(bias);
#pragma omp for schedule(static)
      for (int64_t t = 0; t < rows; ++t) {
        for_chunks_of_row(t, width, [&](const Chunk& c) {
          const Chunk parameters{0, c.column, c.count};
          simd<gain_loop<T, T, G>, T>(o.write(c), hat.read(c), g.read(parameters),
                                      b.present() ? b.read(parameters) : nullptr, c.count);
          o.commit(c);
        });
      }
    }
  });
}

void rmsnorm_backward(Tensor dx, Tensor dgain, Tensor dy, Tensor xhat, Tensor rstd, Tensor gain, Tensor row_sums,
                      Tensor workspace) {
  backward(Kind::rms, dx, dgain, {}, dy, xhat, rstd, gain, row_sums, workspace);
}

void layernorm_backward(Tensor dx, Tensor dgain, Tensor dbias, Tensor dy, Tensor xhat, Tensor rstd, Tensor gain,
                        Tensor row_sums, Tensor workspace) {
  backward(Kind::layer, dx, dgain, dbias, dy, xhat, rstd, gain, row_sums, workspace);
}

}  // namespace llmz::cpu
