#include "kernels/cuda/device.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/twins.h"

namespace llmz::cuda {
namespace {

template <int N>
__global__ void lookup_kernel(Operand out, const int32_t* tokens, Operand table, Operand positions, int64_t seq_len,
                              int64_t position_offset, int64_t rows, int64_t width) {
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const int64_t from = table.offset(tokens[row]);
    const int64_t position = positions.present() ? positions.offset(position_offset + row % seq_len) : 0;
    for (int64_t c = threadIdx.x * N; c < width; c += blockDim.x * N) {
      Pack<N> x = table.load<N>(from, c);
      if (positions.present()) {
        const Pack<N> p = positions.load<N>(position, c);
#pragma unroll
        for (int i = 0; i < N; ++i) x[i] += p[i];
      }
      out.store<N>(out.offset(row), c, x);
    }
  }
}

// Backward: which tokens are of which id, in order, so that each row of the table has one owner and one order of
// additions. Counting sort; the order in which atomics place tokens is undone by the last step.

__global__ void zero_kernel(int32_t* x, int64_t n) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) x[i] = 0;
}

/// counts[id + 1] = tokens of that id.
__global__ void count_kernel(int32_t* counts, const int32_t* tokens, int64_t rows) {
  const int64_t t = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (t < rows) atomicAdd(counts + tokens[t] + 1, 1);
}

/// starts[i] = Σ_{j ≤ i} counts[j], in place, and a copy in `cursor`; one block.
__global__ void scan_kernel(int32_t* starts, int32_t* cursor, int64_t n) {
  __shared__ int32_t warps[kWarp];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  int32_t carried = 0;
  for (int64_t first = 0; first < n; first += blockDim.x) {
    const int64_t i = first + threadIdx.x;
    int32_t sum = i < n ? starts[i] : 0;
    for (int step = 1; step < kWarp; step *= 2) {
      const int32_t before = __shfl_sync(kAllLanes, sum, lane - step < 0 ? lane : lane - step);
      if (lane >= step) sum += before;
    }
    if (lane == kWarp - 1) warps[warp] = sum;
    __syncthreads();
    int32_t total = 0;
    for (int w = 0; w < static_cast<int>(blockDim.x) / kWarp; ++w) {
      if (w < warp) sum += warps[w];
      total += warps[w];
    }
    if (i < n) starts[i] = cursor[i] = carried + sum;
    carried += total;
    __syncthreads();
  }
}

__global__ void place_kernel(int32_t* placed, int32_t* cursor, const int32_t* tokens, int64_t rows) {
  const int64_t t = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (t < rows) placed[atomicAdd(cursor + tokens[t], 1)] = static_cast<int32_t>(t);
}

/// Each token counts those of its id that come before it.
__global__ void order_kernel(int32_t* ordered, const int32_t* placed, const int32_t* starts, const int32_t* tokens,
                             int64_t rows) {
  const int64_t t = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (t >= rows) return;
  const int32_t begin = starts[tokens[t]], end = starts[tokens[t] + 1];
  int32_t before = 0;
  for (int32_t i = begin; i < end; ++i) before += placed[i] < t;
  ordered[begin + before] = static_cast<int32_t>(t);
}

/// One block an id and span of columns: adds the rows of its tokens in order.
template <int N>
__global__ void add_rows_kernel(Operand dtable, Operand dout, const int32_t* ordered, const int32_t* starts,
                                int64_t width) {
  const int32_t begin = starts[blockIdx.x], end = starts[blockIdx.x + 1];
  const int64_t c = (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x) * N;
  if (begin == end || c >= width) return;
  const int64_t at = dtable.offset(blockIdx.x);
  Pack<N> sum = dtable.load<N>(at, c);
  for (int32_t i = begin; i < end; ++i) {
    const Pack<N> x = dout.load<N>(dout.offset(ordered[i]), c);
#pragma unroll
    for (int k = 0; k < N; ++k) sum[k] += x[k];
  }
  dtable.store<N>(at, c, sum);
}

template <int N>
__global__ void add_positions_kernel(Operand dpositions, Operand dout, int64_t seq_len, int64_t rows, int64_t width) {
  const int64_t c = (static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x) * N;
  if (c >= width) return;
  const int64_t at = dpositions.offset(blockIdx.x);
  Pack<N> sum = dpositions.load<N>(at, c);
  for (int64_t t = blockIdx.x; t < rows; t += seq_len) {
    const Pack<N> x = dout.load<N>(dout.offset(t), c);
#pragma unroll
    for (int k = 0; k < N; ++k) sum[k] += x[k];
  }
  dpositions.store<N>(at, c, sum);
}

/// Counting sort of the tokens by id. Workspace: starts [V + 1], cursor [V + 1], placed [T], ordered [T].
struct Groups {
  int32_t *starts, *cursor, *placed, *ordered;
};
Groups group_tokens(Gpu& gpu, const Tensor& tokens, int64_t ids, const Tensor& workspace) {
  const int64_t rows = tokens.numel();
  const auto* id = tokens.as<int32_t>();
  auto* const base = workspace.as<int32_t>();
  const Groups g{base, base + ids + 1, base + 2 * (ids + 1), base + 2 * (ids + 1) + rows};
  const unsigned blocks = blocks_for(rows, kThreads);
  launch(gpu, "embedding_backward.zero", zero_kernel, blocks_for(ids + 1, kThreads), kThreads, 0, g.starts, ids + 1);
  launch(gpu, "embedding_backward.count", count_kernel, blocks, kThreads, 0, g.starts, id, rows);
  launch(gpu, "embedding_backward.scan", scan_kernel, 1, 1024, 0, g.starts, g.cursor, ids + 1);
  launch(gpu, "embedding_backward.place", place_kernel, blocks, kThreads, 0, g.placed, g.cursor, id, rows);
  launch(gpu, "embedding_backward.order", order_kernel, blocks, kThreads, 0, g.ordered, g.placed, g.starts, id, rows);
  return g;
}

}  // namespace

void embedding_forward(Gpu& gpu, Tensor out, Tensor tokens, Tensor table, Tensor positions, int64_t seq_len,
                       int64_t position_offset) {
  const int64_t rows = out.dim(0), width = out.dim(1);
  const bool fours = all_by_fours(out, table, positions);
  launch(gpu, "embedding_forward", fours ? lookup_kernel<4> : lookup_kernel<1>, row_blocks(rows),
         threads_for_row(width, fours ? 4 : 1), 0, operand(out), tokens.as<int32_t>(), operand(table),
         operand(positions), seq_len, position_offset, rows, width);
}

void embedding_backward(Gpu& gpu, Tensor dtable, Tensor dpositions, Tensor dout, Tensor tokens, int64_t seq_len,
                        Tensor workspace) {
  const int64_t rows = dout.dim(0), width = dout.dim(1), ids = dtable.dim(0);
  if (rows == 0) return;
  const Groups g = group_tokens(gpu, tokens, ids, workspace);
  const bool fours = all_by_fours(dtable, dpositions, dout);
  const int each = fours ? 4 : 1, threads = threads_for_row(width, each);
  const unsigned spans = blocks_for(width, threads * each);
  launch(gpu, "embedding_backward", fours ? add_rows_kernel<4> : add_rows_kernel<1>,
         dim3(static_cast<unsigned>(ids), spans), threads, 0, operand(dtable), operand(dout), g.ordered, g.starts,
         width);
  if (!dpositions.present()) return;
  launch(gpu, "embedding_backward.positions", fours ? add_positions_kernel<4> : add_positions_kernel<1>,
         dim3(static_cast<unsigned>(seq_len < rows ? seq_len : rows), spans), threads, 0, operand(dpositions),
         operand(dout), seq_len, rows, width);
}

}  // namespace llmz::cuda
