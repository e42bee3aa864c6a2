#include "kernels/cpu/attention_tiles.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "catch.h"
#include "ops/checks.h"
#include "ops/reference.h"

using namespace llmz;
using namespace llmz::test;

namespace {

double largest_of(const std::vector<float>& x) {
  float largest = 0;
  for (const float v : x) largest = std::max(largest, std::fabs(v));
  return static_cast<double>(largest);
}

}  // namespace

TEST_CASE("attention's tiles give the same for every instruction set this processor has") {
  using namespace llmz::cpu;
  constexpr int64_t kWidth = 48, kKeys = 3 * kTile, kRows = 61;
  const auto random = [](int64_t n, unsigned seed) {
    const std::vector<double> v = HostTensor::random(DType::f32, {n}, seed, 0.5).values();
    return std::vector<float>(v.begin(), v.end());
  };
  const auto q = random(kTile * kWidth, 1), dout = random(kTile * kWidth, 2), k_t = random(kKeys * kWidth, 3),
             rows = random(kKeys * kWidth, 4);
  std::vector<float> delta = random(kTile, 5);
  const std::vector<float> lse(kTile, 5.5f);
  struct Result {
    std::vector<float> sum = std::vector<float>(kTile * kWidth), dq = sum, dk = std::vector<float>(kKeys * kWidth),
                       dv = dk, total = std::vector<float>(kTile), deltas = total;
  };
  const auto run = [&](const AttentionTiles& tiles) {
    Result r;
    std::vector<float> largest(kTile), p(kTile * kTile), ds(kTile * kTile), lanes(kTile * kTotalLanes);
    const QueryTile tile{kRows, kKeys - kRows, kWidth};
    ForwardTile f{tile,         q.data(),     k_t.data(),     rows.data(),   p.data(),
                  lanes.data(), r.sum.data(), largest.data(), r.total.data()};
    tiles.forward(f);
    BackwardTile b{tile, q.data(), k_t.data()};
    b.k = rows.data();
    b.v_t = k_t.data();
    b.dout = dout.data();
    b.lse = lse.data();
    b.delta = delta.data();
    b.p = p.data();
    b.ds = ds.data();
    b.dq = r.dq.data();
    b.dk = r.dk.data();
    b.dv = r.dv.data();
    tiles.backward(b);
    std::vector<float> dk = r.dk, dv = r.dv, dq = r.dq;  // again, for the deltas that it makes itself
    b.make_delta = true;
    b.delta = r.deltas.data();
    b.dq = dq.data();
    b.dk = dk.data();
    b.dv = dv.data();
    tiles.backward(b);
    return r;
  };
  const Result narrow = run(attention_tiles(Isa::baseline));
  for (const Isa set : {Isa::avx2, Isa::avx512}) {
    if (set > widest_isa()) continue;
    const Result wide = run(attention_tiles(set));
    const auto compare_arrays = [&](const std::vector<float>& a, const std::vector<float>& b, size_t n) {
      // The same sums in another order. A score's 48 terms (Σ|q·k| < 20) leave √48·20 roundings in the exponent.
      const double tolerance = 140 * rounding(DType::f32) * largest_of(b);
      for (size_t i = 0; i < n; ++i) REQUIRE(std::fabs(a[i] - b[i]) <= tolerance);
    };
    compare_arrays(wide.sum, narrow.sum, kRows * kWidth);
    compare_arrays(wide.total, narrow.total, kRows);
    compare_arrays(wide.deltas, narrow.deltas, kRows);
    compare_arrays(wide.dq, narrow.dq, kRows * kWidth);
    compare_arrays(wide.dk, narrow.dk, kKeys * kWidth);
    compare_arrays(wide.dv, narrow.dv, kKeys * kWidth);
  }
}
