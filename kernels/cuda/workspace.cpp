#include "kernels/cuda/workspace.h"

#include <algorithm>

#include "kernels/cuda/limits.h"

namespace llmz::cuda {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

#ifdef LLMZ_HAVE_CUDNN
constexpr bool kHaveCudnn = true;
#else
constexpr bool kHaveCudnn = false;  // nothing is planned for it then
#endif

/// Whether cuDNN's attention may be asked, by what the plan knows.
bool suits_cudnn(const Tensor& q) {
  return kHaveCudnn && q.dtype == DType::bf16 && q.dim(3) % 8 == 0 && q.dim(3) <= kMostTileWidth;
}

/// A sequence's derivatives of the probabilities in bf16, in whole tiles: what a deterministic backward keeps before
/// Blackwell.
int64_t score_bytes(const Tensor& q, const Tensor& k) {
  return q.dim(2) * ceil_div(q.dim(1), 64) * 64 * ceil_div(k.dim(1), 128) * 128 * 2;
}

}  // namespace

int64_t matmul_copy_pitch(const Tensor& t) { return ceil_div(t.dim(1), 8) * 8; }
int64_t matmul_copy_bytes(const Tensor& t, DType type) {
  const int64_t element = static_cast<int64_t>(dtype_bytes(type));
  return ceil_div(t.dim(0) * matmul_copy_pitch(t) * element, 256) * 256;
}

WorkspaceShape matmul_workspace(const MatmulArgs& args) {
  int64_t bytes = kBlasWorkspaceBytes;
  if (matmul_takes_copies(args)) {
    for (const Tensor& t : {args.c, args.a, args.b}) {
      if (t.dtype == DType::bf16) bytes += matmul_copy_bytes(t, DType::f32);
    }
  } else {
    for (const Tensor& t : {args.a, args.b}) {
      if (matmul_aligns(t)) bytes += matmul_copy_bytes(t, DType::bf16);
    }
  }
  return {{bytes}, DType::u8};
}

WorkspaceShape bias_backward_workspace(const Tensor& dy) { return {{kReduceBlocks, dy.dim(1)}, DType::f32}; }

WorkspaceShape norm_backward_workspace(const Tensor& dx, int outputs) {
  const int64_t width = dx.dim(dx.rank() - 1);
  return {{std::min<int64_t>(kReduceBlocks, dx.numel() / width), outputs * width}, DType::f32};
}

WorkspaceShape attention_forward_workspace(const Tensor& q, const ops::AttentionMask& mask) {
  if (!mask.only_causal() || !suits_cudnn(q)) return {};
  // A row's maximum and sum, twice.
  return {{4 * q.dim(0) * q.dim(2) * q.dim(1) + kAttentionSlackBytes / 4}, DType::f32};
}

int64_t attention_backward_piece(const Tensor& q, const Tensor& k) {
  const int64_t batch = q.dim(0), one = std::max<int64_t>(score_bytes(q, k), 1);
  if (one > kMostScoreBytes) return batch;  // no room is planned for any of it
  int64_t piece = std::clamp<int64_t>(kScoreBytes / one, 1, std::max<int64_t>(batch, 1));
  while (batch % piece != 0) --piece;
  return piece;
}

WorkspaceShape attention_backward_workspace(const Tensor& q, const Tensor& k, const ops::AttentionMask& mask,
                                            bool with_out) {
  // Σ dout·out of each row [B,heads,Sq]: all that llmz's own kernels take.
  const int64_t own = q.dim(0) * q.dim(2) * q.dim(1);
  if (!with_out || !mask.only_causal() || !suits_cudnn(q)) return {{own}, DType::f32};
  // cuDNN: the same, sums of dq in f32, dk and dv of each query head where heads share keys, and the scores.
  const int64_t heads = q.dim(2), width = q.dim(3), queries = ceil_div(q.dim(1), 128) * 128;
  const int64_t keys = ceil_div(k.dim(1), 128) * 128, scores = score_bytes(q, k);
  int64_t elements = heads * queries * (1 + width);
  if (k.dim(2) != heads) elements += 2 * heads * keys * width;
  if (scores <= kMostScoreBytes) elements += scores / 4;
  return {{std::max(own, attention_backward_piece(q, k) * elements + kAttentionSlackBytes / 4)}, DType::f32};
}

WorkspaceShape embedding_backward_workspace(const Tensor& tokens, const Tensor& dtable) {
  // First place of each id's tokens, then the places of all tokens, by id.
  return {{2 * (dtable.dim(0) + 1) + 2 * tokens.numel()}, DType::i32};
}

WorkspaceShape difference_norms_workspace(const Tensor& a) { return {{2 * reduce_blocks(a.numel())}, DType::f64}; }

WorkspaceShape sum_of_squares_workspace(const Tensor& x) { return {{reduce_blocks(x.numel())}, DType::f64}; }

WorkspaceShape add_sum_workspace(const Tensor& x) { return {{reduce_blocks(x.numel())}, DType::f64}; }

WorkspaceShape factored_sums_workspace(const Tensor& weight) {
  // Squares by block of rows and column, by row and block of columns.
  const int64_t m = weight.dim(0), n = weight.dim(1);
  return {{ceil_div(m, kFactoredRows) * n + m * ceil_div(n, ops::kMomentBlock)}, DType::f64};
}

WorkspaceShape orthonormalize_workspace(const Tensor& basis, const Tensor& against) {
  // The matrix, a factor and a sign for each row, flags; cuSOLVER's own: it works in panels of some dozens of columns
  // and may copy the matrix. It tells its need only where there is a GPU; this is several times what is known.
  const int64_t rows = basis.dim(0) + (against.present() ? against.dim(0) : 0), n = basis.dim(1);
  return {{rows * n + 2 * rows + kSolverFlags + (rows * n + 256 * (rows + n) + (int64_t{1} << 18))}, DType::f64};
}

WorkspaceShape eigenvectors_workspace(const Tensor& gram) {
  // The matrix, its eigenvalues, flags; cuSOLVER's own: LAPACK's method takes 2n² + 6n + 1, here with room.
  const int64_t n = gram.dim(0);
  return {{n * n + n + kSolverFlags + (3 * n * n + 512 * n + (int64_t{1} << 18))}, DType::f64};
}

bool fuses_projected_adam(const ProjectedAdamArgs& args) {
  const Projector& p = *args.low.projector;
  const bool half = args.weight.dtype == DType::bf16 || args.rounding.shadow.present();
  return half && p.random == Projector::Random::gaussian && p.principal_rank == 0 && p.random_rank <= kMostFusedRank;
}

Shape padded_direction(const ProjectedAdamArgs& args) {
  return {args.weight.dim(0), ceil_div(args.low.projector->rank(), kFusedRankStep) * kFusedRankStep};
}

}  // namespace llmz::cuda
