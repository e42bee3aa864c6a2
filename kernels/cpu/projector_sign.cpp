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

template <class T>
LLMZ_INLINE void spread_loop(T* __restrict out, const compute_t<T>* __restrict z, const int32_t* __restrict group,
                             const compute_t<T>* __restrict sign, compute_t<T> alpha, bool accumulate, int64_t n) {
  if (accumulate) {
    for (int64_t i = 0; i < n; ++i) store(out + i, load(out + i) + alpha * sign[i] * z[group[i]]);
  } else {
    for (int64_t i = 0; i < n; ++i) store(out + i, alpha * sign[i] * z[group[i]]);
  }
}

/// A whole row in the type of computation, which gathering takes: the tensor's own memory, or a copy in `buffer`.
template <class Real>
const Real* whole_row(const Tensor& t, int64_t row, Real* buffer) {
  auto* const bytes = static_cast<std::byte*>(t.data) + row * t.stride(0) * static_cast<int64_t>(dtype_bytes(t.dtype));
  if (t.dtype == dtype_of<Real>::value) return reinterpret_cast<const Real*>(bytes);
  convert(buffer, dtype_of<Real>::value, bytes, t.dtype, t.dim(1));
  return buffer;
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
    const RowAddress to(z);
#pragma omp parallel if (x.numel() > kParallelElements)
    {
      std::vector<Real> in(x.dtype == signs.dtype ? 0 : static_cast<size_t>(n)), sums(static_cast<size_t>(groups));
#pragma omp for schedule(static)
      for (int64_t t = 0; t < rows; ++t) {
        const Real* row = whole_row(x, t, in.data());
        std::fill(sums.begin(), sums.end(), Real(0));
        for (int64_t first = 0; first < n; first += groups) {
          simd<gather_add_loop<Real>>(sums.data(), row, feature + first, sign + first, std::min(groups, n - first));
        }
        convert(to.at(t, 0), z.dtype, sums.data(), dtype_of<Real>::value, groups);
      }
    }
  });
}

void sign_expand(Tensor out, Tensor z, Tensor index, Tensor signs, double alpha, bool accumulate) {
  const int64_t rows = out.dim(0), n = out.dim(1);
  const auto* group = index.as<int32_t>() + n;
  with_row_type(std::array{out}, [&]<class T>(T) {
    using Real = compute_t<T>;
    const auto* sign = static_cast<const Real*>(signs.data) + n;
#pragma omp parallel if (out.numel() > kParallelElements)
    {
      std::vector<Real> in(z.dtype == signs.dtype ? 0 : static_cast<size_t>(z.dim(1)));
#pragma omp for schedule(static)
      for (int64_t t = 0; t < rows; ++t) {
        simd<spread_loop<T>>(out.as<T>() + t * out.stride(0), whole_row(z, t, in.data()), group, sign,
                             static_cast<Real>(alpha), accumulate, n);
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
