#include "llmz/ops/attention.h"

#include "kernels/cpu/twins.h"
#include "kernels/cuda/twins.h"
#include "src/ops/dispatch.h"

namespace llmz::ops {
namespace {

constexpr int64_t kMostGpuWidth = 256;

/// Pairs of a query and a key that it sees, of one head.
double seen_pairs(const AttentionMask& mask, int64_t queries, int64_t keys) {
  int64_t pairs = 0;
  for (int64_t i = keys - queries; i < keys; ++i) pairs += std::max<int64_t>(0, mask.end(i, keys) - mask.begin(i));
  return static_cast<double>(pairs);
}

/// Checks what forward and backward share and returns the arithmetic of forward: 2 products of 2·D for every pair of a
/// query and a key that it sees.
double check_attention(const Exec& exec, Arguments& check, const Tensor& lse, const Tensor& q, const Tensor& k,
                       const Tensor& v, const AttentionMask& mask) {
  check.floats("q", q);
  check.floats("k", k);
  check.rank("q", q, 4);
  check.rank("k", k, 4);
  const int64_t batch = q.dim(0), queries = q.dim(1), heads = q.dim(2), width = q.dim(3);
  const int64_t keys = k.dim(1), kv_heads = k.dim(2);
  check.require(k.dim(0) == batch && k.dim(3) == width, "q {} and k {} differ in batch or head width", q.shape.str(),
                k.shape.str());
  check.require(kv_heads > 0 && heads % kv_heads == 0, "{} heads of q {} are no multiple of {} heads of k {}", heads,
                q.shape.str(), kv_heads, k.shape.str());
  check.require(keys >= queries, "q {} holds more positions than k {}", q.shape.str(), k.shape.str());
  check.require(!exec.on_gpu() || width <= kMostGpuWidth,
                "q {} has heads wider than {}, the most there is a kernel for", q.shape.str(), kMostGpuWidth);
  check.floats("v", v, k.shape);
  check.same_dtype({{"q", q}, {"k", k}, {"v", v}});
  check.statistic("lse", lse, {batch, heads, queries});
  check.require(mask.window >= 0, "the mask's window is {}, it cannot be negative", mask.window);
  if (mask.lengths.present()) {
    check.dtype("lengths", mask.lengths, DType::i32);
    check.shape("lengths", mask.lengths, {batch});
  }
  return 4.0 * static_cast<double>(width) * seen_pairs(mask, queries, keys) * static_cast<double>(batch * heads);
}

void check_out(Arguments& check, const Tensor& out, const Tensor& q) {
  check.floats("out", out, q.shape);
  check.same_dtype({{"q", q}, {"out", out}});
}

DType compute_dtype(const Arguments& check) { return check.is_double() ? DType::f64 : DType::f32; }

}  // namespace

void attention_forward(Exec& exec, Tensor out, Tensor lse, Tensor q, Tensor k, Tensor v, const AttentionMask& mask) {
  Arguments check("attention_forward");
  exec.flops += check_attention(exec, check, lse, q, k, v, mask);
  check_out(check, out, q);
  constexpr const char* kName = "attention_forward.workspace";
  const Buffer workspace =
      exec.on_gpu() ? take_workspace(exec, kName, cuda::attention_forward_workspace(q, mask))
                    : take_workspace(exec, kName, cpu::attention_forward_workspace(q, k), compute_dtype(check));
  dispatch(
      exec, check, [&] { cpu::attention_forward(out, lse, q, k, v, mask, workspace.tensor()); },
      [&](Gpu& gpu) { cuda::attention_forward(gpu, out, lse, q, k, v, mask, workspace.tensor()); });
}

void attention_backward(Exec& exec, Tensor dq, Tensor dk, Tensor dv, Tensor dout, Tensor out, Tensor lse, Tensor q,
                        Tensor k, Tensor v, const AttentionMask& mask) {
  Arguments check("attention_backward");
  const double forward = check_attention(exec, check, lse, q, k, v, mask);
  if (out.present()) check_out(check, out, q);
  check.floats("dq", dq, q.shape);
  check.floats("dk", dk, k.shape);
  check.floats("dv", dv, v.shape);
  check.floats("dout", dout, q.shape);
  check.same_dtype({{"q", q}, {"dq", dq}, {"dk", dk}, {"dv", dv}, {"dout", dout}});
  exec.flops += (out.present() ? 2.5 : 3.5) * forward;
  constexpr const char* kName = "attention_backward.workspace";
  const Buffer workspace =
      exec.on_gpu() ? take_workspace(exec, kName, cuda::attention_backward_workspace(q, k, mask, out.present()))
                    : take_workspace(exec, kName, cpu::attention_backward_workspace(q, k), compute_dtype(check));
  dispatch(
      exec, check, [&] { cpu::attention_backward(dq, dk, dv, dout, out, lse, q, k, v, mask, workspace.tensor()); },
      [&](Gpu& gpu) { cuda::attention_backward(gpu, dq, dk, dv, dout, out, lse, q, k, v, mask, workspace.tensor()); });
}

}  // namespace llmz::ops
