#include "kernels/cuda/attention.cuh"

#include <algorithm>
#include <cmath>

#include "kernels/cuda/attention_cudnn.h"
#include "kernels/cuda/twins.h"

// Which kernels a call of attention takes: cuDNN's where it takes the call, else llmz's own; masks that are not merely
// causal take the scalar ones. Their backward: delta = Σ dout·out of each row into the workspace, then dq by query
// blocks and dk, dv by key blocks. Scores are computed once more that way than by one kernel for all three, but every
// sum has one owner and one order: no atomics, the same bits each time.

namespace llmz::cuda {
namespace {

HeadRows head_rows(const Tensor& t) {
  if (!t.present()) return {};
  return {t.data, t.stride(0), t.stride(1), t.stride(2), t.dtype == DType::bf16};
}

RowNumbers row_numbers(const Tensor& t) { return {t.as<float>(), t.stride(0), t.stride(1)}; }

/// [B,heads,Sq] at the start of the workspace.
RowNumbers workspace_rows(const Tensor& workspace, const AttentionShape& s) {
  return {workspace.as<float>(), int64_t{s.heads} * s.queries, s.queries};
}

AttentionShape attention_shape(const Tensor& q, const Tensor& k, const ops::AttentionMask& mask) {
  AttentionShape s;
  s.batch = static_cast<int>(q.dim(0)), s.queries = static_cast<int>(q.dim(1)), s.keys = static_cast<int>(k.dim(1));
  s.heads = static_cast<int>(q.dim(2)), s.kv_heads = static_cast<int>(k.dim(2)), s.group = s.heads / s.kv_heads;
  s.width = static_cast<int>(q.dim(3));
  s.scale = 1.0f / std::sqrt(static_cast<float>(s.width));
  s.causal = mask.causal;
  s.window = static_cast<int>(std::min<int64_t>(mask.window, s.keys));  // further than that there is no key
  s.lengths = mask.lengths.present() ? mask.lengths.as<int32_t>() : nullptr;
  return s;
}

/// Whether the tensor-core kernels and cuDNN can take these rows: bf16, every row made of aligned 16-byte pieces.
template <class... Tensors>
bool by_eights(const Tensors&... tensors) {
  const auto fits = [](const Tensor& t) {
    if (!t.present()) return true;
    if (t.dtype != DType::bf16 || t.dim(3) % 8 != 0 || t.dim(3) > kMostTileWidth) return false;
    bool aligned = reinterpret_cast<uintptr_t>(t.data) % 16 == 0;
    for (int i = 0; i < 3; ++i) aligned = aligned && (t.dim(i) == 1 || t.stride(i) % 8 == 0);
    return aligned;
  };
  return (fits(tensors) && ...);
}

}  // namespace

void attention_forward(Gpu& gpu, Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v, const ops::AttentionMask& mask,
                       Tensor workspace) {
  const bool tiles = mask.only_causal() && by_eights(out, q, k, v);
  if (tiles && cudnn_attention_forward(gpu, out, lse, q, k, v, workspace)) return;
  const AttentionForward x{
      attention_shape(q, k, mask), head_rows(out), head_rows(q), head_rows(k), head_rows(v), row_numbers(lse)};
  if (tiles) return launch_forward_tiles(gpu, x);
  launch_forward_scalar(gpu, x);
}

void attention_backward(Gpu& gpu, Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out, Tensor lse, Tensor q,
                        Tensor k, Tensor v, const ops::AttentionMask& mask, Tensor workspace) {
  const bool tiles = mask.only_causal() && by_eights(dq, dk, dv, dout, out, q, k, v);
  if (tiles && out.present() && cudnn_attention_backward(gpu, dq, dk, dv, dout, out, lse, q, k, v, workspace)) return;
  AttentionBackward x;
  x.shape = attention_shape(q, k, mask);
  x.dq = head_rows(dq), x.dk = head_rows(dk), x.dv = head_rows(dv);
  x.dout = head_rows(dout), x.out = head_rows(out);
  x.q = head_rows(q), x.k = head_rows(k), x.v = head_rows(v);
  x.lse = row_numbers(lse), x.delta = workspace_rows(workspace, x.shape);
  if (!tiles) return launch_backward_scalar(gpu, x);
  if (out.present()) {
    launch_delta_rows(gpu, x, true);
  } else {
    launch_delta_tiles(gpu, x);
  }
  launch_dq_tiles(gpu, x);
  launch_dkv_tiles(gpu, x);
}

}  // namespace llmz::cuda
