#include "kernels/cpu/attention_rows.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/vec_math.h"

namespace llmz::cpu {
namespace {

template <class T>
LLMZ_INLINE compute_t<T> dot(const T* a, const T* b, int64_t n) {
  compute_t<T> sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += load(a + i) * load(b + i);
  return sum;
}

/// p[j] = exp(scale·q·k_j − m), sum[·] = Σ p[j]·v_j. Returns m, the largest of the scaled scores, and Σ p[j] in
/// `total`.
template <class T>
LLMZ_INLINE compute_t<T> query_loop(compute_t<T>* p, compute_t<T>* sum, compute_t<T>& total, const T* q, const T* k,
                                    int64_t k_pitch, const T* v, int64_t v_pitch, int64_t keys, int64_t width,
                                    compute_t<T> scale) {
  using Real = compute_t<T>;
  Real largest = -std::numeric_limits<Real>::infinity();
  for (int64_t j = 0; j < keys; ++j) {
    p[j] = scale * dot(q, k + j * k_pitch, width);
    largest = p[j] > largest ? p[j] : largest;
  }
  for (int64_t j = 0; j < keys; ++j) p[j] = exp(p[j] - largest);
  for (int64_t c = 0; c < width; ++c) sum[c] = 0;
  total = 0;
  for (int64_t j = 0; j < keys; ++j) {
    const T* row = v + j * v_pitch;
    total += p[j];
    for (int64_t c = 0; c < width; ++c) sum[c] += p[j] * load(row + c);
  }
  return largest;
}

template <class T>
void forward_as(const Tensor& out, const Tensor& lse, const Tensor& q, const Tensor& k, const Tensor& v,
                const ops::AttentionMask& mask, const Tensor& workspace) {
  using Real = compute_t<T>;
  const int64_t queries = q.dim(1), heads = q.dim(2), width = q.dim(3), keys = k.dim(1);
  const int64_t group = heads / k.dim(2);
  const Real scale = 1 / std::sqrt(static_cast<Real>(width));
#pragma omp parallel for collapse(3) schedule(static) if (q.numel() * keys > kParallelProducts)
  for (int64_t b = 0; b < q.dim(0); ++b) {
    for (int64_t h = 0; h < heads; ++h) {
      for (int64_t i = 0; i < queries; ++i) {
        Real* p = workspace.as<Real>() + omp_get_thread_num() * workspace.stride(0);
        Real* sum = p + keys;
        Real total = 0;
        const int64_t position = keys - queries + i, begin = mask.begin(position);
        const int64_t seen = std::max<int64_t>(0, mask.end(position, counted_keys(mask, b, keys)) - begin);
        const Real largest =
            simd<query_loop<T>>(p, sum, total, head_row<T>(q, b, i, h), head_row<T>(k, b, begin, h / group),
                                k.stride(1), head_row<T>(v, b, begin, h / group), v.stride(1), seen, width, scale);
        T* o = head_row<T>(out, b, i, h);
        for (int64_t c = 0; c < width; ++c) store(o + c, seen == 0 ? Real(0) : sum[c] / total);
        lse.as<Real>()[b * lse.stride(0) + h * lse.stride(1) + i] = seen == 0 ? Real(0) : largest + std::log(total);
      }
    }
  }
}

/// What the gradients of one query row read: the keys and values it sees, and its own rows.
struct RowInputs {
  const double *q, *dout, *out, *k, *v;
  int64_t k_pitch, v_pitch, keys, width;
  double lse, scale;
};

/// Σ dout·out of the row: from out, or without it from Σ p·(dout·v).
double row_delta(const RowInputs& x) {
  if (x.out != nullptr) return dot(x.dout, x.out, x.width);
  double delta = 0;
  for (int64_t j = 0; j < x.keys; ++j) {
    const double p = exp(x.scale * dot(x.q, x.k + j * x.k_pitch, x.width) - x.lse);
    delta += p * dot(x.dout, x.v + j * x.v_pitch, x.width);
  }
  return delta;
}

/// Overwrites dq; adds to dk and dv, dense [keys, width].
void row_gradients(double* dq, double* dk, double* dv, const RowInputs& x) {
  const int64_t width = x.width;
  const double delta = row_delta(x);
  std::fill(dq, dq + width, 0.0);
  for (int64_t j = 0; j < x.keys; ++j) {
    const double* key = x.k + j * x.k_pitch;
    const double p = exp(x.scale * dot(x.q, key, width) - x.lse);
    const double ds = x.scale * p * (dot(x.dout, x.v + j * x.v_pitch, width) - delta);
    for (int64_t c = 0; c < width; ++c) {
      dq[c] += ds * key[c];
      dk[j * width + c] += ds * x.q[c];
      dv[j * width + c] += p * x.dout[c];
    }
  }
}

}  // namespace

int64_t rows_forward_workspace(const Tensor& q, const Tensor& k) { return k.dim(1) + q.dim(3); }

int64_t rows_backward_workspace(const Tensor& q, const Tensor& k) { return 2 * k.dim(1) * q.dim(3); }

void rows_forward(const Tensor& out, const Tensor& lse, const Tensor& q, const Tensor& k, const Tensor& v,
                  const ops::AttentionMask& mask, const Tensor& workspace) {
  switch (q.dtype) {
    case DType::f64: return forward_as<double>(out, lse, q, k, v, mask, workspace);
    case DType::bf16: return forward_as<bf16>(out, lse, q, k, v, mask, workspace);
    default: return forward_as<float>(out, lse, q, k, v, mask, workspace);
  }
}

void rows_backward(const Tensor& dq, const Tensor& dk, const Tensor& dv, const Tensor& dout, const Tensor& out,
                   const Tensor& lse, const Tensor& q, const Tensor& k, const Tensor& v, const ops::AttentionMask& mask,
                   const Tensor& workspace) {
  const int64_t queries = q.dim(1), width = q.dim(3), keys = k.dim(1), kv_heads = k.dim(2);
  const int64_t group = q.dim(2) / kv_heads;
  const double scale = 1 / std::sqrt(static_cast<double>(width));
#pragma omp parallel for collapse(2) schedule(static) if (q.numel() * keys > kParallelProducts)
  for (int64_t b = 0; b < q.dim(0); ++b) {
    for (int64_t kv = 0; kv < kv_heads; ++kv) {
      double* key_sum = workspace.as<double>() + omp_get_thread_num() * workspace.stride(0);
      double* value_sum = key_sum + keys * width;
      std::fill(key_sum, value_sum + keys * width, 0.0);
      for (int64_t h = kv * group; h < (kv + 1) * group; ++h) {
        for (int64_t i = 0; i < queries; ++i) {
          const int64_t position = keys - queries + i, begin = mask.begin(position);
          const RowInputs x{head_row<double>(q, b, i, h),
                            head_row<double>(dout, b, i, h),
                            out.present() ? head_row<double>(out, b, i, h) : nullptr,
                            head_row<double>(k, b, begin, kv),
                            head_row<double>(v, b, begin, kv),
                            k.stride(1),
                            v.stride(1),
                            mask.end(position, counted_keys(mask, b, keys)) - begin,
                            width,
                            lse.as<double>()[b * lse.stride(0) + h * lse.stride(1) + i],
                            scale};
          row_gradients(head_row<double>(dq, b, i, h), key_sum + begin * width, value_sum + begin * width, x);
        }
      }
      for (int64_t j = 0; j < keys; ++j) {
        std::copy_n(key_sum + j * width, width, head_row<double>(dk, b, j, kv));
        std::copy_n(value_sum + j * width, width, head_row<double>(dv, b, j, kv));
      }
    }
  }
}

}  // namespace llmz::cpu
