#include "llmz/ops/elementwise.h"

#include <cmath>
#include <limits>

#include "ops/checks.h"
#include "ops/fixture.h"
#include "ops/reference.h"

namespace llmz::test {
namespace {

constexpr DType kFloats[] = {DType::f32, DType::bf16, DType::f64};
const Shape kShapes[] = {{1}, {1027}, {3, 7}, {9, 1100}, {2, 3, 5}, {3, 1, 4, 33}, {2, 0}};

}  // namespace

TEST_CASE("add adds, through gaps and mixed types", "[elementwise]") {
  for (auto [y_type, x_type] : {std::pair{DType::f32, DType::f32},
                                {DType::bf16, DType::bf16},
                                {DType::f64, DType::f64},
                                {DType::f32, DType::bf16},
                                {DType::bf16, DType::f32}}) {
    for (const Shape& shape : kShapes) {
      for (int64_t gap : {0, 3}) {
        INFO(dtype_name(y_type) << " += " << dtype_name(x_type) << " " << shape.str() << " gap " << gap);
        HostTensor y = HostTensor::random(y_type, shape, 1, 1.0, gap), x = HostTensor::random(x_type, shape, 2);
        std::vector<double> want = y.values();
        for (int64_t i = 0; i < x.size(); ++i) want[static_cast<size_t>(i)] += x.get(i);
        run_op([&](Exec& e) { ops::add(e, y.tensor(), x.tensor()); });
        // One fp32 (or fp64) addition of numbers below 8, one rounding of the store.
        require_close(y, want, 8 * rounding(y_type == DType::f64 ? DType::f64 : DType::f32), 1.01 * rounding(y_type));
        REQUIRE(y.gaps_intact());
      }
    }
  }
}

namespace {

const std::pair<DType, DType> kPairs[] = {{DType::f32, DType::f32},
                                          {DType::bf16, DType::bf16},
                                          {DType::f64, DType::f64},
                                          {DType::f32, DType::bf16},
                                          {DType::bf16, DType::f32}};
const Shape kMatrices[] = {{1, 1}, {3, 7}, {5, 64}, {37, 129}, {3, 2055}, {0, 5}, {4, 0}};

DType statistic(DType type) { return type == DType::f64 ? DType::f64 : DType::f32; }

}  // namespace

TEST_CASE("row_dot sums products of rows, or with one row for all", "[elementwise]") {
  for (auto [a_type, b_type] : kPairs) {
    for (const Shape& shape : kMatrices) {
      for (const bool one_row : {false, true}) {
        INFO(dtype_name(a_type) << "·" << dtype_name(b_type) << " " << shape.str() << " one row " << one_row);
        const int64_t width = shape[1];
        HostTensor a = HostTensor::random(a_type, shape, 1, 1.0, 3);
        HostTensor b = HostTensor::random(b_type, one_row ? Shape{width} : shape, 2, 1.0, one_row ? 0 : 5);
        HostTensor sums = HostTensor::random(statistic(a_type), {shape[0]}, 3), added = sums;
        // √n roundings of a sum of n products of size 1, and as many for the scaling and the addition.
        const double tolerance = (8 + static_cast<double>(width)) * rounding(statistic(a_type));
        std::vector<double> want, want_added;
        for (int64_t t = 0; t < shape[0]; ++t) {
          double sum = 0;
          for (int64_t i = 0; i < width; ++i) sum += a.get(t * width + i) * b.get(one_row ? i : t * width + i);
          want.push_back(-0.75 * sum);
          want_added.push_back(added.get(t) + -0.75 * sum);
        }
        run_op([&](Exec& e) {
          ops::row_dot(e, sums.tensor(), a.tensor(), b.tensor(), -0.75f);
          ops::row_dot(e, added.tensor(), a.tensor(), b.tensor(), -0.75f, true);
        });
        require_close(sums, want, tolerance, tolerance);
        require_close(added, want_added, tolerance, tolerance);
      }
    }
  }
}

TEST_CASE("difference_norms gives both sums of squares", "[elementwise]") {
  for (auto [a_type, b_type] : kPairs) {
    for (const Shape& shape : {Shape{1}, Shape{1027}, Shape{37, 129}, Shape{70, 1100}, Shape{2, 3, 5}, Shape{2, 0}}) {
      for (int64_t gap : {0, 3}) {
        INFO(dtype_name(a_type) << " − " << dtype_name(b_type) << " " << shape.str() << " gap " << gap);
        HostTensor a = HostTensor::random(a_type, shape, 1, 1.0, gap), b = HostTensor::random(b_type, shape, 2, 3.0);
        HostTensor norms = HostTensor::random(DType::f64, {2}, 3);  // is overwritten
        std::vector<double> want{0, 0};
        for (int64_t i = 0; i < a.size(); ++i) {
          want[0] += std::pow(a.get(i) - b.get(i), 2);
          want[1] += std::pow(b.get(i), 2);
        }
        run_op([&](Exec& e) { ops::difference_norms(e, norms.tensor(), a.tensor(), b.tensor()); });
        // Squares are positive: no cancellation. √n roundings: of at most 1024 squares in the tensors' arithmetic, then
        // in double, as the reference's.
        const double in_double = std::sqrt(static_cast<double>(a.size())) * rounding(DType::f64);
        require_close(norms, want, 0, std::sqrt(1024.0) * rounding(statistic(a_type)) + in_double);
      }
    }
  }
}

TEST_CASE("row_dot and difference_norms do not depend on the number of threads", "[elementwise]") {
  HostTensor a = HostTensor::random(DType::f32, {211, 1033}, 1), b = HostTensor::random(DType::f32, {211, 1033}, 2);
  require_same_for_any_threads([&] {
    HostTensor sums(DType::f32, {211});
    run_op([&](Exec& e) { ops::row_dot(e, sums.tensor(), a.tensor(), b.tensor()); });
    return sums;
  });
  require_same_for_any_threads([&] {
    HostTensor norms(DType::f64, {2});
    run_op([&](Exec& e) { ops::difference_norms(e, norms.tensor(), a.tensor(), b.tensor()); });
    return norms;
  });
}

TEST_CASE("copy converts between all floating-point types", "[elementwise]") {
  for (DType from : kFloats) {
    for (DType to : kFloats) {
      for (const Shape& shape : kShapes) {
        HostTensor in = HostTensor::random(from, shape, 1, 1.0, 2), out(to, shape, 3), want(to, shape, 3);
        if (in.size() > 8) {
          in.set(3, std::numeric_limits<double>::quiet_NaN());
          in.set(5, -std::numeric_limits<double>::infinity());
        }
        want.assign(in.values());  // bf16 from f64 by way of fp32, as HostTensor does
        run_op([&](Exec& e) { ops::copy(e, out.tensor(), in.tensor()); });
        INFO(dtype_name(from) << " to " << dtype_name(to) << " " << shape.str());
        for (int64_t i = 0; i < in.size(); ++i) {
          if (std::isnan(want.get(i))) {
            REQUIRE(std::isnan(out.get(i)));
          } else {
            REQUIRE(out.get(i) == want.get(i));
          }
        }
        REQUIRE(out.gaps_intact());
      }
    }
  }
}

TEST_CASE("copy rounds to bf16 as bf16's constructor does", "[elementwise]") {
  // Ties to even in both directions, the carry into the exponent, overflow to infinity, denormals, a signalling NaN.
  const uint32_t patterns[] = {0x3f808000, 0x3f818000, 0x3f807fff, 0x3f808001, 0x3fffffff, 0x7f7fffff, 0xff7fffff,
                               0x00000001, 0x00008000, 0x80018000, 0x7f800001, 0x7f800000, 0x00000000, 0x80000000};
  constexpr int64_t n = std::size(patterns);
  bf16 out[n];
  run_op([&](Exec& e) {
    ops::copy(e, Tensor(out, DType::bf16, {n}), Tensor(const_cast<uint32_t*>(patterns), DType::f32, {n}));
  });
  for (int64_t i = 0; i < n; ++i) CHECK(out[i].bits == bf16(std::bit_cast<float>(patterns[i])).bits);
}

TEST_CASE("copy gathers four strided dimensions", "[elementwise]") {
  // [B,S,heads,D] read as [B,heads,S,D], D = 6.
  const int64_t batch = 2, seq = 5, heads = 3, dim = 6;
  for (DType to : {DType::f32, DType::bf16}) {
    HostTensor in = HostTensor::random(DType::f32, {batch, seq, heads, dim}, 1), out(to, {batch, heads, seq, dim});
    Tensor turned = in.tensor();
    turned.shape = {batch, heads, seq, dim};
    std::swap(turned.strides[1], turned.strides[2]);
    run_op([&](Exec& e) { ops::copy(e, out.tensor(), turned); });
    int64_t i = 0;
    for (int64_t b = 0; b < batch; ++b) {
      for (int64_t h = 0; h < heads; ++h) {
        for (int64_t s = 0; s < seq; ++s) {
          for (int64_t d = 0; d < dim; ++d, ++i) {
            const double want = in.get(((b * seq + s) * heads + h) * dim + d);
            const bf16 rounded(static_cast<float>(want));
            REQUIRE(out.get(i) == (to == DType::f32 ? want : static_cast<double>(static_cast<float>(rounded))));
          }
        }
      }
    }
  }
}

TEST_CASE("copy moves integers as they are", "[elementwise]") {
  HostTensor in(DType::i32, {3, 5}), out(DType::i32, {3, 5}, 2);
  for (int64_t i = 0; i < in.size(); ++i) in.set(i, static_cast<double>(i * 1000003 - 7));
  run_op([&](Exec& e) { ops::copy(e, out.tensor(), in.tensor()); });
  CHECK(out.values() == in.values());
  CHECK(out.gaps_intact());
}

TEST_CASE("fill sets every element and nothing else", "[elementwise]") {
  for (DType type : kFloats) {
    for (const Shape& shape : kShapes) {
      HostTensor x = HostTensor::random(type, shape, 1, 1.0, 3);
      run_op([&](Exec& e) { ops::fill(e, x.tensor(), -1.5f); });
      REQUIRE(x.values() == std::vector<double>(static_cast<size_t>(x.size()), -1.5));
      REQUIRE(x.gaps_intact());
    }
  }
}

TEST_CASE("fill_normal is the stream's own sequence", "[elementwise]") {
  const RandomStream stream(42, Purpose::test, 3);
  for (uint64_t first : {uint64_t{0}, uint64_t{3}, (uint64_t{1} << 33) + 1}) {
    for (int64_t n : {1, 5, 1027, 9001}) {
      std::vector<float> want(static_cast<size_t>(n));
      stream.fill_normal(want.data(), first, static_cast<uint64_t>(n), 0.02f);
      for (DType type : kFloats) {
        HostTensor x(type, {n}), rounded(type, {n});
        rounded.assign({want.begin(), want.end()});
        run_op([&](Exec& e) { ops::fill_normal(e, x.tensor(), stream, first, 0.02f); });
        REQUIRE(x.same_bits(rounded));
      }
    }
  }
}

TEST_CASE("fill_normal does not depend on the number of threads or on the shape", "[elementwise]") {
  const RandomStream stream(7, Purpose::test);
  require_same_for_any_threads([&] {
    HostTensor x(DType::f32, {91, 103});
    run_op([&](Exec& e) { ops::fill_normal(e, x.tensor(), stream, 5, 1.0f); });
    return x;
  });
}

TEST_CASE("elementwise ops name the argument that is wrong", "[elementwise]") {
  HostTensor a(DType::f32, {2, 3}), b(DType::f32, {3, 2}), ids(DType::i32, {2, 3}), gaps(DType::f32, {2, 3}, 1);
  Tensor turned = a.tensor();
  turned.strides = {1, 2};
  const RandomStream stream(1, Purpose::test);
  require_error([&](Exec& e) { ops::add(e, a.tensor(), b.tensor()); }, {"add", "x", "[3, 2]", "[2, 3]"});
  require_error([&](Exec& e) { ops::add(e, a.tensor(), turned); }, {"add", "x", "not dense"});
  require_error([&](Exec& e) { ops::row_dot(e, a.tensor(), a.tensor(), a.tensor()); }, {"row_dot", "sums", "[2]"});
  require_error([&](Exec& e) { ops::difference_norms(e, a.tensor(), a.tensor(), a.tensor()); },
                {"difference_norms", "norms", "f32", "f64"});
  require_error([&](Exec& e) { ops::copy(e, a.tensor(), ids.tensor()); }, {"copy", "i32", "f32"});
  require_error([&](Exec& e) { ops::copy(e, a.tensor(), b.tensor()); }, {"copy", "out", "[2, 3]", "[3, 2]"});
  require_error([&](Exec& e) { ops::fill(e, ids.tensor(), 0); }, {"fill", "x", "i32"});
  require_error([&](Exec& e) { ops::fill_normal(e, gaps.tensor(), stream, 0, 1); }, {"fill_normal", "contiguous"});
}

TEST_CASE("add_sum adds in double what is there", "[elementwise]") {
  for (DType type : {DType::f32, DType::bf16, DType::f64}) {
    HostTensor x = HostTensor::random(type, {3, 1100}, 4), total(DType::f64, {1});
    total.set(0, 0.25);
    run_op([&](Exec& e) { ops::add_sum(e, total.tensor(), x.tensor()); });
    double want = 0.25;
    for (int64_t i = 0; i < x.size(); ++i) want += x.get(i);
    CHECK(total.get(0) == Approx(want).epsilon(1e-13));
  }
}

TEST_CASE("scale multiplies every element and leaves gaps alone", "[elementwise]") {
  for (DType type : {DType::f32, DType::bf16, DType::f64}) {
    HostTensor x = HostTensor::random(type, {5, 37}, 6, 1.0, 3);
    const std::vector<double> before = x.values();
    run_op([&](Exec& e) { ops::scale(e, x.tensor(), 0.75); });
    REQUIRE(x.gaps_intact());
    for (int64_t i = 0; i < x.size(); ++i) {
      REQUIRE(std::fabs(x.get(i) - 0.75 * before[static_cast<size_t>(i)]) <= 2 * rounding(type) * std::fabs(x.get(i)));
    }
  }
}

TEST_CASE("round_stochastically takes a neighbour, right on average, and exact values as they are", "[elementwise]") {
  constexpr int64_t kDraws = 20000;
  for (double fraction : {0.0, 0.3, 0.9}) {
    HostTensor in(DType::f32, {kDraws}), out(DType::bf16, {kDraws});
    const double low = -1.5, step = 1.0 / 128, value = low - fraction * step;  // of size 1 … 2, bf16 is 1/128 apart
    for (int64_t i = 0; i < kDraws; ++i) in.set(i, value);
    run_op([&](Exec& e) {
      ops::round_stochastically(e, out.tensor(), in.tensor(), RandomStream(3, Purpose::test, 1), 1001);
    });
    double mean = 0;
    for (int64_t i = 0; i < kDraws; ++i) {
      REQUIRE((out.get(i) == low || out.get(i) == low - step));
      mean += out.get(i) / kDraws;
    }
    const double standard_error = step * std::sqrt(fraction * (1 - fraction) / kDraws);
    CHECK(std::fabs(mean - value) <= 4 * standard_error + 1e-12);
  }
  HostTensor odd(DType::f32, {2}), kept(DType::bf16, {2});
  odd.set(0, std::numeric_limits<double>::infinity());
  odd.set(1, std::nan(""));
  run_op(
      [&](Exec& e) { ops::round_stochastically(e, kept.tensor(), odd.tensor(), RandomStream(3, Purpose::test), 0); });
  CHECK((std::isinf(kept.get(0)) && std::isnan(kept.get(1))));
}

}  // namespace llmz::test
