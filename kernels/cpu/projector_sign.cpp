#include <algorithm>
#include <vector>

#include "kernels/cpu/projector.h"
#include "kernels/cpu/rows.h"
#include "llmz/core/sign_map.h"

namespace llmz::cpu {
namespace {

template <class Real>
LLMZ_INLINE void gather_add_loop(Real* __restrict z, const Real* __restrict x, const int32_t* __restrict feature,
                                 const Real* __restrict sign, int64_t n) {
  for (int64_t i = 0; i < n; ++i) z[i] += sign[i] * x[feature[i]];
}

template <class Real>
LLMZ_INLINE void spread_loop(Real* __restrict out, const Real* __restrict z, const int32_t* __restrict group,
                             const Real* __restrict sign, Real alpha, Real keep, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = keep * out[i] + alpha * sign[i] * z[group[i]];
}

template <class Real>
LLMZ_INLINE void spread_over_loop(Real* __restrict out, const Real* __restrict z, const int32_t* __restrict group,
                                  const Real* __restrict sign, Real alpha, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = alpha * sign[i] * z[group[i]];
}

LLMZ_SIMD_CLONES void gather_add(float* z, const float* x, const int32_t* feature, const float* sign, int64_t n) {
  gather_add_loop(z, x, feature, sign, n);
}
void gather_add(double* z, const double* x, const int32_t* feature, const double* sign, int64_t n) {
  gather_add_loop(z, x, feature, sign, n);
}
LLMZ_SIMD_CLONES void spread(float* out, const float* z, const int32_t* group, const float* sign, float alpha,
                             bool accumulate, int64_t n) {
  if (accumulate) {
    spread_loop(out, z, group, sign, alpha, 1.0f, n);
  } else {
    spread_over_loop(out, z, group, sign, alpha, n);
  }
}
void spread(double* out, const double* z, const int32_t* group, const double* sign, double alpha, bool accumulate,
            int64_t n) {
  if (accumulate) {
    spread_loop(out, z, group, sign, alpha, 1.0, n);
  } else {
    spread_over_loop(out, z, group, sign, alpha, n);
  }
}

/// A whole row in the type of computation: the tensor's own memory, or a copy in `buffer`.
template <class Real>
const Real* whole_row(const Tensor& t, int64_t row, Real* buffer) {
  auto* const bytes = static_cast<std::byte*>(t.data) + row * t.stride(0) * static_cast<int64_t>(dtype_bytes(t.dtype));
  if (t.dtype == dtype_of<Real>::value) return reinterpret_cast<const Real*>(bytes);
  convert(buffer, dtype_of<Real>::value, bytes, t.dtype, t.dim(1));
  return buffer;
}

template <class Real>
void store_row(const Tensor& t, int64_t row, const Real* values) {
  auto* const bytes = static_cast<std::byte*>(t.data) + row * t.stride(0) * static_cast<int64_t>(dtype_bytes(t.dtype));
  if (static_cast<const void*>(bytes) != values) convert(bytes, t.dtype, values, dtype_of<Real>::value, t.dim(1));
}

}  // namespace

void sign_tables(Tensor index, Tensor signs, const Projector& p) {
  const int64_t n = p.width, groups = p.random_rank;
  auto* const feature = index.as<int32_t>();
  const SignMap map(p.seed, p.layer, n);
  with_compute_type(signs.dtype, [&]<class Real>(Real) {
    auto* const by_position = static_cast<Real*>(signs.data);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t position = map.position(i);
      const auto sign = static_cast<Real>(map.sign(i));
      feature[position] = static_cast<int32_t>(i);
      feature[n + i] = static_cast<int32_t>(position % groups);
      by_position[position] = sign;
      by_position[n + i] = sign;
    }
  });
}

void sign_project(Tensor z, Tensor x, Tensor index, Tensor signs) {
  const int64_t rows = x.dim(0), n = x.dim(1), groups = z.dim(1);
  const auto* feature = index.as<int32_t>();
  with_compute_type(signs.dtype, [&]<class Real>(Real) {
    const auto* sign = static_cast<const Real*>(signs.data);
#pragma omp parallel if (x.numel() > kParallelElements)
    {
      std::vector<Real> in(x.dtype == signs.dtype ? 0 : static_cast<size_t>(n)), sums(static_cast<size_t>(groups));
#pragma omp for schedule(static)
      for (int64_t t = 0; t < rows; ++t) {
        const Real* row = whole_row(x, t, in.data());
        std::fill(sums.begin(), sums.end(), Real(0));
        for (int64_t first = 0; first < n; first += groups) {
          gather_add(sums.data(), row, feature + first, sign + first, std::min(groups, n - first));
        }
        store_row(z, t, sums.data());
      }
    }
  });
}

void sign_expand(Tensor out, Tensor z, Tensor index, Tensor signs, double alpha, bool accumulate) {
  const int64_t rows = out.dim(0), n = out.dim(1);
  const auto* group = index.as<int32_t>() + n;
  with_compute_type(signs.dtype, [&]<class Real>(Real) {
    const auto* sign = static_cast<const Real*>(signs.data) + n;
    const bool direct = out.dtype == signs.dtype;
#pragma omp parallel if (out.numel() > kParallelElements)
    {
      std::vector<Real> in(z.dtype == signs.dtype ? 0 : static_cast<size_t>(z.dim(1)));
      std::vector<Real> result(direct ? 0 : static_cast<size_t>(n));
#pragma omp for schedule(static)
      for (int64_t t = 0; t < rows; ++t) {
        const Real* sums = whole_row(z, t, in.data());
        Real* to = direct ? const_cast<Real*>(whole_row<Real>(out, t, nullptr)) : result.data();
        if (!direct && accumulate) whole_row(out, t, result.data());
        spread(to, sums, group, sign, static_cast<Real>(alpha), accumulate, n);
        store_row(out, t, to);
      }
    }
  });
}

void sign_weights(Tensor weights, Tensor scale, Tensor index) {
  const int64_t n = index.dim(1);
  const auto* group = index.as<int32_t>() + n;
  with_compute_type(weights.dtype, [&]<class Real>(Real) {
    auto* const sums = static_cast<Real*>(weights.data);
    std::fill_n(sums, weights.numel(), Real(0));
    std::vector<Real> buffer(static_cast<size_t>(n), Real(1));
    if (scale.present()) convert(buffer.data(), dtype_of<Real>::value, scale.data, scale.dtype, n);
    for (int64_t i = 0; i < n; ++i) {
      const Real s = buffer[static_cast<size_t>(i)];
      sums[group[i]] += s * s;
    }
  });
}

}  // namespace llmz::cpu
