#include <cmath>

#include "kernels/cpu/projector.h"
#include "kernels/cpu/random_bits.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/twins.h"
#include "llmz/core/random.h"

namespace llmz::cpu {
namespace {

/// Box–Muller on pairs of words, as RandomStream::normal does: sine first.
LLMZ_INLINE void normals_loop(float* __restrict out, const uint32_t* __restrict words, float stddev, int64_t pairs) {
  constexpr float kTwoToMinus32 = 2.3283064365386963e-10f;
  for (int64_t i = 0; i < pairs; ++i) {
    const float u = static_cast<float>(words[2 * i]) * kTwoToMinus32 + kTwoToMinus32 * 0.5f;
    const float turn = static_cast<float>(words[2 * i + 1]) * kTwoToMinus32 + kTwoToMinus32 * 0.5f;
    const float radius = stddev * std::sqrt(-2.0f * log(u));
    const SineCosine angle = sine_cosine_of_turns(turn);
    out[2 * i] = radius * angle.sine;
    out[2 * i + 1] = radius * angle.cosine;
  }
}

}  // namespace

void gaussian_matrix(Tensor r, const Projector& p) {
  const float stddev = 1.0f / std::sqrt(static_cast<float>(p.random_rank));
  const int64_t count = r.numel();
  if (r.dtype == DType::f64) {
    return fill_normal(r, RandomStream(p.seed, Purpose::projector, p.layer), 0, stddev);
  }
  const RandomStream stream(p.seed, Purpose::projector, p.layer);
  auto* const out = static_cast<std::byte*>(r.data);
  const auto bytes = static_cast<int64_t>(dtype_bytes(r.dtype));
#pragma omp parallel for schedule(static) if (count > kParallelElements)
  for (int64_t first = 0; first < count; first += kChunk) {
    uint32_t buffer[kRandomWords];
    float normals[kChunk];
    const int64_t n = std::min(kChunk, count - first);
    simd<normals_loop>(normals, random_bits(buffer, stream, static_cast<uint64_t>(first), kChunk), stddev, (n + 1) / 2);
    convert(out + first * bytes, r.dtype, normals, DType::f32, n);
  }
}

}  // namespace llmz::cpu
