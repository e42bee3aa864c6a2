#include "kernels/cuda/device.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/random.cuh"
#include "kernels/cuda/row_sketch.cuh"
#include "kernels/cuda/twins.h"
#include "llmz/core/sign_map.h"

namespace llmz::cuda {
namespace {

/// index [2,n]: the feature at each position, the group of each feature; signs [2,n] likewise.
__global__ void tables_kernel(int32_t* index, Operand signs, SignMap map, DeviceStream stream, int64_t n,
                              int64_t groups) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const int64_t position = map.position(i);
  const uint32_t bits = stream.bits(SignMap::kSigns + static_cast<uint64_t>(i) / 32);
  const float sign = (bits >> (i % 32) & 1u) != 0 ? -1.0f : 1.0f;
  index[position] = static_cast<int32_t>(i);
  index[n + i] = static_cast<int32_t>(position % groups);
  signs.put(position, sign);
  signs.put(n + i, sign);
}

/// z = x·R: rows of x go to shared memory first.
__global__ void project_kernel(Operand x, RowSketch sketch) {
  float* const row = dynamic_shared<float>();
  for (int k = 0; k < sketch.count(); ++k) {
    const int64_t at = x.offset(sketch.first() + k);
    for (int64_t i = threadIdx.x; i < sketch.n; i += blockDim.x) row[k * sketch.n + i] = x.at(at + i);
  }
  __syncthreads();
  sketch.project(row);
}

/// out[t,i] = alpha·sign_i·z[t,group_i] (+ out).
__global__ void expand_kernel(Operand out, Operand z, const int32_t* group, Operand signs, float alpha, bool accumulate,
                              int64_t rows, int64_t n, int64_t groups, int together) {
  float* const row = dynamic_shared<float>();
  const int64_t first = static_cast<int64_t>(blockIdx.x) * together;
  const int count = static_cast<int>(rows - first < together ? rows - first : together);
  for (int k = 0; k < count; ++k) {
    const int64_t at = z.offset(first + k);
    for (int64_t g = threadIdx.x; g < groups; g += blockDim.x) row[k * groups + g] = z.at(at + g);
  }
  __syncthreads();
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
    const float factor = alpha * signs.at(n + i);
    const int32_t g = group[i];
    for (int k = 0; k < count; ++k) {
      const int64_t at = out.offset(first + k) + i;
      out.put(at, factor * row[k * groups + g] + (accumulate ? out.at(at) : 0.0f));
    }
  }
}

__global__ void weights_kernel(Operand weights, Operand scale, const int32_t* feature, int64_t n, int64_t groups) {
  const int64_t g = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (g >= groups) return;
  float sum = 0;
  for (int64_t p = g; p < n; p += groups) {
    const float s = scale.present() ? scale.at(feature[p]) : 1.0f;
    sum += s * s;
  }
  weights.put(g, sum);
}

}  // namespace

void sign_tables(Gpu& gpu, Tensor index, Tensor signs, const Projector& p) {
  const RandomStream stream(p.seed, Purpose::projector, p.layer);
  launch(gpu, "sign_tables", tables_kernel, blocks_for(p.width, kThreads), kThreads, 0, index.as<int32_t>(),
         flat(signs), SignMap(p.seed, p.layer, p.width), device_stream(stream), p.width, p.random_rank);
}

void sign_project(Gpu& gpu, Tensor z, Tensor x, Tensor index, Tensor signs) {
  const RowSketch sketch = row_sketch({z, index, signs}, x);
  launch(gpu, "sign_project", project_kernel, sketch.blocks(), kThreads, sketch.shared_bytes(), operand(x), sketch);
}

void sign_expand(Gpu& gpu, Tensor out, Tensor z, Tensor index, Tensor signs, double alpha, bool accumulate) {
  const int64_t rows = out.dim(0), n = out.dim(1), groups = z.dim(1);
  const int together = rows_together(groups);
  launch(gpu, "sign_expand", expand_kernel, blocks_for(rows, together), kThreads,
         static_cast<size_t>(together * groups) * sizeof(float), operand(out), operand(z), index.as<int32_t>() + n,
         flat(signs), static_cast<float>(alpha), accumulate, rows, n, groups, together);
}

void sign_weights(Gpu& gpu, Tensor weights, Tensor scale, Tensor index) {
  const int64_t groups = weights.numel();
  launch(gpu, "sign_weights", weights_kernel, blocks_for(groups, kThreads), kThreads, 0, operand(weights),
         operand(scale), index.as<int32_t>(), index.dim(1), groups);
}

void gaussian_matrix(Gpu& gpu, Tensor r, const Projector& p) {
  const float stddev = 1.0f / sqrtf(static_cast<float>(p.random_rank));
  fill_normal(gpu, r, RandomStream(p.seed, Purpose::projector, p.layer), 0, stddev);
}

}  // namespace llmz::cuda
