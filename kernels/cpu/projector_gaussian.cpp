#include <cmath>
#include <numbers>

#include "kernels/cpu/projector.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/twins.h"
#include "llmz/core/random.h"

namespace llmz::cpu {
namespace {

constexpr int64_t kLanes = 16;               // Philox counters side by side
constexpr int64_t kPiece = 64 * 4 * kLanes;  // normals a task makes

/// Philox4x32-10 of kLanes consecutive counters, as philox4x32: word w of counter l at words[w][l].
LLMZ_INLINE void philox_lanes(uint32_t words[4][kLanes], uint64_t first, const uint32_t stream[2],
                              const uint32_t key[2]) {
  constexpr uint64_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
  constexpr uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;
  for (int64_t l = 0; l < kLanes; ++l) {
    const uint64_t counter = first + static_cast<uint64_t>(l);
    words[0][l] = static_cast<uint32_t>(counter);
    words[1][l] = static_cast<uint32_t>(counter >> 32);
    words[2][l] = stream[0];
    words[3][l] = stream[1];
  }
  uint32_t k0 = key[0], k1 = key[1];
  for (int round = 0; round < 10; ++round) {
    for (int64_t l = 0; l < kLanes; ++l) {
      const uint64_t p0 = kMultiplier0 * words[0][l], p1 = kMultiplier1 * words[2][l];
      words[0][l] = static_cast<uint32_t>(p1 >> 32) ^ words[1][l] ^ k0;
      words[1][l] = static_cast<uint32_t>(p1);
      words[2][l] = static_cast<uint32_t>(p0 >> 32) ^ words[3][l] ^ k1;
      words[3][l] = static_cast<uint32_t>(p0);
    }
    k0 += kWeyl0;
    k1 += kWeyl1;
  }
}

/// out[4·l + 0 … 3]: the four normals of each counter, as RandomStream::normal makes them.
LLMZ_INLINE void normals_of_pair(float* out, const uint32_t* x, const uint32_t* y, float stddev) {
  constexpr float kTwoToMinus32 = 2.3283064365386963e-10f;
  float sines[kLanes], cosines[kLanes];
  for (int64_t l = 0; l < kLanes; ++l) {
    const float u = static_cast<float>(x[l]) * kTwoToMinus32 + kTwoToMinus32 * 0.5f;
    const float turn = static_cast<float>(y[l]) * kTwoToMinus32 + kTwoToMinus32 * 0.5f;
    const float radius = stddev * std::sqrt(-2.0f * log(u));
    const SineCosine angle = sine_cosine_of_turns(turn);
    sines[l] = radius * angle.sine;
    cosines[l] = radius * angle.cosine;
  }
  for (int64_t l = 0; l < kLanes; ++l) {
    out[4 * l] = sines[l];
    out[4 * l + 1] = cosines[l];
  }
}

/// count normals, a multiple of 4·kLanes, from element 4·first_block of the stream.
LLMZ_SIMD_CLONES void make_normals(float* out, uint64_t first_block, int64_t count, const uint32_t* stream,
                                   const uint32_t* key, float stddev) {
  for (int64_t i = 0; i < count; i += 4 * kLanes) {
    uint32_t words[4][kLanes];
    philox_lanes(words, first_block + static_cast<uint64_t>(i / 4), stream, key);
    normals_of_pair(out + i, words[0], words[1], stddev);
    normals_of_pair(out + i + 2, words[2], words[3], stddev);
  }
}

}  // namespace

void gaussian_matrix(Tensor r, const Projector& p) {
  const float stddev = 1.0f / std::sqrt(static_cast<float>(p.random_rank));
  const int64_t count = r.numel();
  if (r.dtype == DType::f64) {
    return fill_normal(r, RandomStream(p.seed, Purpose::projector, p.layer), 0, stddev);
  }
  const uint32_t key[2] = {static_cast<uint32_t>(p.seed), static_cast<uint32_t>(p.seed >> 32)};
  const uint32_t stream[2] = {p.layer, static_cast<uint32_t>(Purpose::projector)};
  float* const out = r.as<float>();
#pragma omp parallel for schedule(static) if (count > kParallelElements)
  for (int64_t first = 0; first < count; first += kPiece) {
    const int64_t n = std::min(kPiece, count - first), whole = n / (4 * kLanes) * (4 * kLanes);
    make_normals(out + first, static_cast<uint64_t>(first / 4), whole, stream, key, stddev);
    if (whole == n) continue;
    float rest[4 * kLanes];
    make_normals(rest, static_cast<uint64_t>((first + whole) / 4), 4 * kLanes, stream, key, stddev);
    std::copy_n(rest, n - whole, out + first + whole);
  }
}

}  // namespace llmz::cpu
