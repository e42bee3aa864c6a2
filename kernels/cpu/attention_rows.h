#pragma once

#include <algorithm>

#include "llmz/core/tensor.h"
#include "llmz/ops/attention_mask.h"

namespace llmz::cpu {

/// Attention a query row at a time: for a few queries against many keys (generation), where packing tiles does not pay,
/// and for f64. Workspace [threads, rows_*_workspace].
int64_t rows_forward_workspace(const Tensor& q, const Tensor& k);
int64_t rows_backward_workspace(const Tensor& q, const Tensor& k);
void rows_forward(const Tensor& out, const Tensor& lse, const Tensor& q, const Tensor& k, const Tensor& v,
                  const ops::AttentionMask& mask, const Tensor& workspace);
/// f64 only.
void rows_backward(const Tensor& dq, const Tensor& dk, const Tensor& dv, const Tensor& dout, const Tensor& out,
                   const Tensor& lse, const Tensor& q, const Tensor& k, const Tensor& v, const ops::AttentionMask& mask,
                   const Tensor& workspace);

/// Below this many products q·k one thread is quicker than waking the others.
constexpr int64_t kParallelProducts = int64_t{1} << 16;

/// Keys of sequence b that are no padding.
inline int64_t counted_keys(const ops::AttentionMask& mask, int64_t b, int64_t keys) {
  return mask.lengths.present() ? std::clamp<int64_t>(mask.lengths.as<int32_t>()[b], 0, keys) : keys;
}

/// Row `s` of head `h` of sequence `b`.
template <class T>
T* head_row(const Tensor& t, int64_t b, int64_t s, int64_t h) {
  return t.as<T>() + b * t.stride(0) + s * t.stride(1) + h * t.stride(2);
}

}  // namespace llmz::cpu
