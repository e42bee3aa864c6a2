#pragma once

#include <cstdint>

namespace llmz::cuda {

/// Widest head of the tensor-core kernels of attention.
constexpr int64_t kMostTileWidth = 128;
/// What NVIDIA advises for cuBLASLt on Hopper; more does not make it faster.
constexpr int64_t kBlasWorkspaceBytes = int64_t{32} << 20;
/// Room for cuDNN's attention beside what its tensors explain.
constexpr int64_t kAttentionSlackBytes = int64_t{4} << 20;
/// What its backward may take for a matrix of queries × keys: so many sequences at a time as stay below the first
/// number, one at a time up to the second.
constexpr int64_t kScoreBytes = int64_t{64} << 20, kMostScoreBytes = int64_t{256} << 20;
/// Most blocks of a reduction over rows or elements: the same on every GPU, so that its order of additions is too.
constexpr int64_t kReduceBlocks = 512;
/// Blocks that add up so many elements.
constexpr int64_t reduce_blocks(int64_t elements) {
  const int64_t wanted = (elements + 4095) / 4096;
  return wanted < 1 ? 1 : wanted < kReduceBlocks ? wanted : kReduceBlocks;
}
/// Rows of the gradient whose squares one block adds up by column (factored second moment).
constexpr int64_t kFactoredRows = 64;

/// The fused projected Adam takes so much of the rank at a time, and keeps columns of the whole rank in shared memory.
constexpr int64_t kFusedRankStep = 64, kMostFusedRank = 2048;
/// Of a decomposition's f64 workspace, the elements that hold what it reports (as integers).
constexpr int64_t kSolverFlags = 32;

}  // namespace llmz::cuda
