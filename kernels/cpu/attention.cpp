#include <omp.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/twins.h"
#include "kernels/cpu/vec_math.h"

namespace llmz::cpu {
namespace {

/// Row `s` of head `h` of sequence `b`.
template <class T>
T* head_row(const Tensor& t, int64_t b, int64_t s, int64_t h) {
  return t.as<T>() + b * t.stride(0) + s * t.stride(1) + h * t.stride(2);
}

template <class T, class Real>
Real dot(const T* a, const T* b, int64_t n) {
  Real sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<Real>(load(a + i)) * static_cast<Real>(load(b + i));
  return sum;
}

template <class T>
void forward_as(const Tensor& out, const Tensor& lse, const Tensor& q, const Tensor& k, const Tensor& v,
                const Tensor& workspace) {
  using Real = compute_t<T>;
  const int64_t queries = q.dim(1), heads = q.dim(2), width = q.dim(3), keys = k.dim(1);
  const int64_t group = heads / k.dim(2);
  const Real scale = 1 / std::sqrt(static_cast<Real>(width));
#pragma omp parallel for collapse(3) schedule(static)
  for (int64_t b = 0; b < q.dim(0); ++b) {
    for (int64_t h = 0; h < heads; ++h) {
      for (int64_t i = 0; i < queries; ++i) {
        Real* p = workspace.as<Real>() + omp_get_thread_num() * workspace.stride(0);
        Real* sum = p + keys;
        const int64_t visible = keys - queries + i + 1;
        Real largest = -std::numeric_limits<Real>::infinity();
        for (int64_t j = 0; j < visible; ++j) {
          p[j] = scale * dot<T, Real>(head_row<T>(q, b, i, h), head_row<T>(k, b, j, h / group), width);
          largest = std::max(largest, p[j]);
        }
        Real total = 0;
        std::fill(sum, sum + width, Real{0});
        for (int64_t j = 0; j < visible; ++j) {
          const Real e = exp(p[j] - largest);
          total += e;
          const T* row = head_row<T>(v, b, j, h / group);
          for (int64_t c = 0; c < width; ++c) sum[c] += e * load(row + c);
        }
        T* o = head_row<T>(out, b, i, h);
        for (int64_t c = 0; c < width; ++c) store(o + c, sum[c] / total);
        lse.as<Real>()[b * lse.stride(0) + h * lse.stride(1) + i] = largest + std::log(total);
      }
    }
  }
}

/// Gradients of one query row: adds to dk and dv (dense [keys, width]), overwrites dq.
template <class T>
void backward_row(T* dq, compute_t<T>* dk, compute_t<T>* dv, compute_t<T>* sum, const T* dout, const T* out,
                  compute_t<T> lse, const T* q, const T* k, const T* v, int64_t k_pitch, int64_t v_pitch,
                  int64_t visible, int64_t width) {
  using Real = compute_t<T>;
  const Real scale = 1 / std::sqrt(static_cast<Real>(width));
  const Real delta = dot<T, Real>(dout, out, width);
  std::fill(sum, sum + width, Real{0});
  for (int64_t j = 0; j < visible; ++j) {
    const T* key = k + j * k_pitch;
    const Real p = exp(scale * dot<T, Real>(q, key, width) - lse);
    const Real ds = scale * p * (dot<T, Real>(dout, v + j * v_pitch, width) - delta);
    for (int64_t c = 0; c < width; ++c) {
      sum[c] += ds * load(key + c);
      dk[j * width + c] += ds * load(q + c);
      dv[j * width + c] += p * load(dout + c);
    }
  }
  for (int64_t c = 0; c < width; ++c) store(dq + c, sum[c]);
}

template <class T>
void backward_as(const Tensor& dq, const Tensor& dk, const Tensor& dv, const Tensor& dout, const Tensor& out,
                 const Tensor& lse, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& workspace) {
  using Real = compute_t<T>;
  const int64_t queries = q.dim(1), width = q.dim(3), keys = k.dim(1), kv_heads = k.dim(2);
  const int64_t group = q.dim(2) / kv_heads;
#pragma omp parallel for collapse(2) schedule(static)
  for (int64_t b = 0; b < q.dim(0); ++b) {
    for (int64_t kv = 0; kv < kv_heads; ++kv) {
      Real* key_sum = workspace.as<Real>() + omp_get_thread_num() * workspace.stride(0);
      Real* value_sum = key_sum + keys * width;
      Real* query_sum = value_sum + keys * width;
      std::fill(key_sum, query_sum, Real{0});
      for (int64_t h = kv * group; h < (kv + 1) * group; ++h) {
        for (int64_t i = 0; i < queries; ++i) {
          backward_row<T>(head_row<T>(dq, b, i, h), key_sum, value_sum, query_sum, head_row<T>(dout, b, i, h),
                          head_row<T>(out, b, i, h), lse.as<Real>()[b * lse.stride(0) + h * lse.stride(1) + i],
                          head_row<T>(q, b, i, h), head_row<T>(k, b, 0, kv), head_row<T>(v, b, 0, kv), k.stride(1),
                          v.stride(1), keys - queries + i + 1, width);
        }
      }
      for (int64_t j = 0; j < keys; ++j) {
        for (int64_t c = 0; c < width; ++c) {
          store(head_row<T>(dk, b, j, kv) + c, key_sum[j * width + c]);
          store(head_row<T>(dv, b, j, kv) + c, value_sum[j * width + c]);
        }
      }
    }
  }
}

}  // namespace

Shape attention_forward_workspace(const Tensor& q, const Tensor& k) {
  return {omp_get_max_threads(), k.dim(1) + q.dim(3)};
}

Shape attention_backward_workspace(const Tensor& q, const Tensor& k) {
  return {omp_get_max_threads(), (2 * k.dim(1) + 1) * q.dim(3)};
}

void attention_forward(Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v, Tensor workspace) {
  switch (q.dtype) {
    case DType::f64: return forward_as<double>(out, lse, q, k, v, workspace);
    case DType::bf16: return forward_as<bf16>(out, lse, q, k, v, workspace);
    default: return forward_as<float>(out, lse, q, k, v, workspace);
  }
}

void attention_backward(Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out, Tensor lse, Tensor q, Tensor k,
                        Tensor v, Tensor workspace) {
  switch (q.dtype) {
    case DType::f64: return backward_as<double>(dq, dk, dv, dout, out, lse, q, k, v, workspace);
    case DType::bf16: return backward_as<bf16>(dq, dk, dv, dout, out, lse, q, k, v, workspace);
    default: return backward_as<float>(dq, dk, dv, dout, out, lse, q, k, v, workspace);
  }
}

}  // namespace llmz::cpu
