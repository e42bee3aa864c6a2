#include "kernels/cuda/workspace.h"

#include <algorithm>

#include "kernels/cuda/limits.h"

namespace llmz::cuda {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

WorkspaceShape matmul_workspace(const MatmulArgs& args) {
  // cuBLASLt's own, then fp32 copies of bf16 operands that meet an f32 one.
  int64_t bytes = kBlasWorkspaceBytes;
  const bool mixed = args.a.dtype != args.b.dtype;
  for (const Tensor& t : {args.a, args.b}) {
    if (mixed && t.dtype == DType::bf16) bytes += ceil_div(4 * t.numel(), 256) * 256;
  }
  return {{bytes}, DType::u8};
}

WorkspaceShape bias_backward_workspace(const Tensor& dy) { return {{kReduceBlocks, dy.dim(1)}, DType::f32}; }

WorkspaceShape norm_backward_workspace(const Tensor& dx, int outputs) {
  return {{std::min<int64_t>(kReduceBlocks, dx.dim(0)), outputs * dx.dim(1)}, DType::f32};
}

WorkspaceShape attention_forward_workspace(const Tensor&, const Tensor&) { return {}; }

WorkspaceShape attention_backward_workspace(const Tensor& q, const Tensor&, bool) {
  // Σ dout·out of each row [B,heads,Sq].
  return {{q.dim(0), q.dim(2), q.dim(1)}, DType::f32};
}

WorkspaceShape embedding_backward_workspace(const Tensor& tokens, const Tensor& dtable) {
  // First place of each id's tokens, then the places of all tokens, by id.
  return {{2 * (dtable.dim(0) + 1) + 2 * tokens.numel()}, DType::i32};
}

WorkspaceShape difference_norms_workspace(const Tensor&) { return {{2 * kReduceBlocks}, DType::f64}; }

WorkspaceShape sum_of_squares_workspace(const Tensor&) { return {{kReduceBlocks}, DType::f64}; }

WorkspaceShape factored_sums_workspace(const Tensor& weight) {
  // Squares by block of rows and column, by row and block of columns; 1/mean of the rows' averages.
  const int64_t m = weight.dim(0), n = weight.dim(1);
  return {{ceil_div(m, kFactoredRows) * n + m * ceil_div(n, ops::kMomentBlock) + 1}, DType::f64};
}

WorkspaceShape orthonormalize_workspace(const Tensor& basis, const Tensor& against) {
  const int64_t k = basis.dim(0), n = basis.dim(1), others = against.present() ? against.dim(0) : 0;
  return {{2 * k + others, n}, DType::f64};
}

WorkspaceShape eigenvectors_workspace(const Tensor& gram) { return {{gram.dim(0), gram.dim(1)}, DType::f64}; }

}  // namespace llmz::cuda
