#include "llmz/ops/activation.h"

#include <cmath>

#include "ops/checks.h"
#include "ops/fixture.h"
#include "ops/reference.h"

namespace llmz::test {
namespace {

constexpr DType kTypes[] = {DType::f32, DType::bf16, DType::f64};
// One element; below, at and past a vector; two chunks of 1024 and some.
const Shape kShapes[] = {{1, 1}, {3, 7}, {5, 64}, {9, 129}, {3, 2055}};

double silu(double z) { return z / (1 + std::exp(-z)); }
double silu_slope(double z) {
  const double s = 1 / (1 + std::exp(-z));
  return s + z * s * (1 - s);
}
double gelu(double x) { return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }

/// Random numbers a few units wide, then the far ends, where exponentials run over and under.
HostTensor inputs(DType type, const Shape& shape, unsigned seed, int64_t gap) {
  HostTensor x = HostTensor::random(type, shape, seed, 3.0, gap);
  const double ends[] = {0.0, -0.0, 20.0, -20.0, 88.0, -88.0, 200.0, -200.0, 1e4, -1e4};
  for (size_t i = 0; i < std::size(ends) && static_cast<int64_t>(i) + 1 < x.size(); ++i) {
    x.set(static_cast<int64_t>(i) + 1, ends[i]);
  }
  return x;
}

/// |got − want| ≤ arithmetic·size + the output's own rounding, `size` being that of the terms that make up want.
void require_near(const HostTensor& got, int64_t i, double want, double size) {
  const double arithmetic = 32 * rounding(got.dtype() == DType::f64 ? DType::f64 : DType::f32);
  const double allowed = arithmetic * size + 1.01 * rounding(got.dtype()) * std::fabs(want) + 1e-37;  // denormals
  INFO("element " << i << ": got " << got.get(i) << ", want " << want << ", allowed " << allowed);
  REQUIRE(std::fabs(got.get(i) - want) <= allowed);
}

struct Swiglu {
  HostTensor gate, up, out, dout, dgate, dup;
  Swiglu(DType type, const Shape& shape, int64_t gap)
      : gate(inputs(type, shape, 1, gap)),
        up(HostTensor::random(type, shape, 2, 1.0, gap)),
        out(type, shape, gap),
        dout(HostTensor::random(type, shape, 3, 1.0, gap)),
        dgate(type, shape, gap),
        dup(type, shape, gap) {}
  void forward() {
    run_op([&](Exec& e) { ops::swiglu_forward(e, out.tensor(), gate.tensor(), up.tensor()); });
  }
  void backward() {
    run_op([&](Exec& e) {
      ops::swiglu_backward(e, dgate.tensor(), dup.tensor(), dout.tensor(), gate.tensor(), up.tensor());
    });
  }
};

}  // namespace

TEST_CASE("swiglu equals its formula in double", "[activation]") {
  for (DType type : kTypes) {
    for (const Shape& shape : kShapes) {
      for (int64_t gap : {0, 5}) {
        INFO(dtype_name(type) << " " << shape.str() << " gap " << gap);
        Swiglu s(type, shape, gap);
        s.forward();
        s.backward();
        for (int64_t i = 0; i < s.out.size(); ++i) {
          const double z = s.gate.get(i), u = s.up.get(i), d = s.dout.get(i);
          require_near(s.out, i, silu(z) * u, std::fabs(silu(z) * u));
          // silu' crosses 0 near z = −1.28 and cancels there; its terms are σ and σ·|z|.
          const double terms = std::fabs(d * u) * (1 + std::fabs(z)) / (1 + std::exp(-z));
          require_near(s.dgate, i, d * u * silu_slope(z), terms);
          require_near(s.dup, i, d * silu(z), std::fabs(d * silu(z)));
        }
        REQUIRE((s.out.gaps_intact() && s.dgate.gaps_intact() && s.dup.gaps_intact()));
      }
    }
  }
}

TEST_CASE("swiglu takes the halves of one buffer and writes its gradients over them", "[activation]") {
  const int64_t tokens = 13, width = 1100;
  for (DType type : kTypes) {
    Swiglu apart(type, {tokens, width}, 0);
    apart.forward();
    apart.backward();
    HostTensor both(type, {tokens, 2 * width}), out(type, {tokens, width});
    for (int64_t i = 0; i < apart.gate.size(); ++i) {
      const int64_t at = i / width * 2 * width + i % width;
      both.set(at, apart.gate.get(i));
      both.set(at + width, apart.up.get(i));
    }
    const Tensor gate = both.tensor().slice(1, 0, width), up = both.tensor().slice(1, width, width);
    run_op([&](Exec& e) { ops::swiglu_forward(e, out.tensor(), gate, up); });
    CHECK(out.same_bits(apart.out));
    run_op([&](Exec& e) { ops::swiglu_backward(e, gate, up, apart.dout.tensor(), gate, up); });
    for (int64_t i = 0; i < apart.gate.size(); ++i) {
      const int64_t at = i / width * 2 * width + i % width;
      REQUIRE(both.get(at) == apart.dgate.get(i));
      REQUIRE(both.get(at + width) == apart.dup.get(i));
    }
  }
}

TEST_CASE("gelu equals its formula in double", "[activation]") {
  for (DType type : kTypes) {
    for (const Shape& shape : kShapes) {
      INFO(dtype_name(type) << " " << shape.str());
      HostTensor x = inputs(type, shape, 1, 2), dout = HostTensor::random(type, shape, 2, 1.0, 2);
      HostTensor out(type, shape, 2), dx(type, shape, 2);
      run_op([&](Exec& e) {
        ops::gelu_forward(e, out.tensor(), x.tensor());
        ops::gelu_backward(e, dx.tensor(), dout.tensor(), x.tensor());
      });
      for (int64_t i = 0; i < x.size(); ++i) {
        const double z = x.get(i);
        require_near(out, i, gelu(z), std::fabs(z));  // 1 + tanh cancels on the negative side
        const double inner = std::sqrt(2 / M_PI) * (1 + 3 * 0.044715 * z * z);
        const double t = std::tanh(std::sqrt(2 / M_PI) * (z + 0.044715 * z * z * z));
        const double slope = 0.5 * (1 + t) + 0.5 * z * (1 - t * t) * inner;
        // 1 − tanh² keeps an absolute error of one rounding, which the factor before it enlarges, until tanh is
        // exactly ±1 past |x| = 9.
        const double enlarged = std::fabs(z) < 9 ? 1 + std::fabs(z) * inner : 1;
        require_near(dx, i, dout.get(i) * slope, std::fabs(dout.get(i)) * enlarged);
      }
      REQUIRE((out.gaps_intact() && dx.gaps_intact()));
    }
  }
}

TEST_CASE("gelu_backward may write over either of its inputs", "[activation]") {
  for (DType type : kTypes) {
    const Shape shape{7, 1201};
    HostTensor x = inputs(type, shape, 1, 0), dout = HostTensor::random(type, shape, 2), dx(type, shape);
    run_op([&](Exec& e) { ops::gelu_backward(e, dx.tensor(), dout.tensor(), x.tensor()); });
    HostTensor over_dout = dout, over_x = x;
    run_op([&](Exec& e) { ops::gelu_backward(e, over_dout.tensor(), over_dout.tensor(), x.tensor()); });
    run_op([&](Exec& e) { ops::gelu_backward(e, over_x.tensor(), dout.tensor(), over_x.tensor()); });
    CHECK(over_dout.same_bits(dx));
    CHECK(over_x.same_bits(dx));
  }
}

TEST_CASE("activation gradients are the slopes of forward", "[activation]") {
  const Shape shape{3, 5};
  const double tolerance = 1e-8;  // see central_difference
  Swiglu s(DType::f64, shape, 0);
  s.gate = HostTensor::random(DType::f64, shape, 1, 2.0);
  s.backward();
  const auto swiglu_loss = [&] {
    s.forward();
    return weighted_sum(s.out, s.dout);
  };
  require_close(s.dgate, central_difference(s.gate, swiglu_loss), tolerance, tolerance);
  require_close(s.dup, central_difference(s.up, swiglu_loss), tolerance, tolerance);

  HostTensor x = HostTensor::random(DType::f64, shape, 4), out(DType::f64, shape), dx(DType::f64, shape);
  HostTensor dout = HostTensor::random(DType::f64, shape, 5);
  run_op([&](Exec& e) { ops::gelu_backward(e, dx.tensor(), dout.tensor(), x.tensor()); });
  const auto gelu_loss = [&] {
    run_op([&](Exec& e) { ops::gelu_forward(e, out.tensor(), x.tensor()); });
    return weighted_sum(out, dout);
  };
  require_close(dx, central_difference(x, gelu_loss), tolerance, tolerance);
}

namespace {

DType statistic(DType type) { return type == DType::f64 ? DType::f64 : DType::f32; }

/// Sums of a row's `terms`: each is as exact as require_near wants, and adding n of them in lanes leaves about √n
/// further roundings of the largest partial sum, which Σ|term| bounds.
void require_row_sums(const HostTensor& got, const std::vector<double>& terms, const std::vector<double>& sizes) {
  const size_t width = terms.size() / static_cast<size_t>(got.size());
  const double arithmetic = (32 + std::sqrt(static_cast<double>(width))) * rounding(got.dtype());
  for (int64_t t = 0; t < got.size(); ++t) {
    double sum = 0, size = 0;
    for (size_t i = static_cast<size_t>(t) * width; i < static_cast<size_t>(t + 1) * width; ++i) {
      sum += terms[i];
      size += sizes[i];
    }
    INFO("row " << t << ": got " << got.get(t) << ", want " << sum);
    REQUIRE(std::fabs(got.get(t) - sum) <= arithmetic * size + 1e-37);
  }
}

}  // namespace

TEST_CASE("swiglu_backward sums each row's gradients times inputs, also over its inputs", "[activation]") {
  for (DType type : kTypes) {
    for (const Shape& shape : kShapes) {
      INFO(dtype_name(type) << " " << shape.str());
      Swiglu s(type, shape, 3), plain(type, shape, 3);
      plain.backward();
      std::vector<double> terms, sizes;
      for (int64_t i = 0; i < s.gate.size(); ++i) {
        const double z = s.gate.get(i), u = s.up.get(i), d = s.dout.get(i);
        terms.push_back(d * u * silu_slope(z) * z + d * silu(z) * u);
        sizes.push_back(std::fabs(d * u * z) * (2 + std::fabs(z)) / (1 + std::exp(-z)));
      }
      HostTensor sums(statistic(type), {shape[0]});
      const auto backward = [&](Tensor dgate, Tensor dup) {
        sums.assign(std::vector<double>(static_cast<size_t>(shape[0]), 1e9));  // is overwritten
        run_op([&](Exec& e) {
          ops::swiglu_backward(e, dgate, dup, s.dout.tensor(), s.gate.tensor(), s.up.tensor(), sums.tensor());
        });
        require_row_sums(sums, terms, sizes);
      };
      backward(s.dgate.tensor(), s.dup.tensor());
      CHECK((s.dgate.same_bits(plain.dgate) && s.dup.same_bits(plain.dup)));
      backward(s.gate.tensor(), s.up.tensor());
      CHECK((s.gate.same_bits(plain.dgate) && s.up.same_bits(plain.dup)));
    }
  }
}

TEST_CASE("gelu_backward sums each row's gradients times inputs, also over its inputs", "[activation]") {
  for (DType type : kTypes) {
    for (const Shape& shape : kShapes) {
      INFO(dtype_name(type) << " " << shape.str());
      HostTensor x = inputs(type, shape, 1, 2), dout = HostTensor::random(type, shape, 2, 1.0, 2), dx(type, shape, 2);
      run_op([&](Exec& e) { ops::gelu_backward(e, dx.tensor(), dout.tensor(), x.tensor()); });
      std::vector<double> terms, sizes;
      for (int64_t i = 0; i < x.size(); ++i) {
        const double z = x.get(i), d = dout.get(i);
        const double t = std::tanh(std::sqrt(2 / M_PI) * (z + 0.044715 * z * z * z));
        const double inner = std::sqrt(2 / M_PI) * (1 + 3 * 0.044715 * z * z);
        terms.push_back(d * z * (0.5 * (1 + t) + 0.5 * z * (1 - t * t) * inner));
        sizes.push_back(std::fabs(d * z) * (std::fabs(z) < 9 ? 1 + std::fabs(z) * inner : 1));  // 1 − t² is 0 past 9
      }
      for (const bool over_x : {false, true}) {
        HostTensor in = x, out = dout, sums(statistic(type), {shape[0]});
        HostTensor& to = over_x ? in : out;
        run_op([&](Exec& e) { ops::gelu_backward(e, to.tensor(), out.tensor(), in.tensor(), sums.tensor()); });
        require_row_sums(sums, terms, sizes);
        CHECK(to.same_bits(dx));
      }
    }
  }
}

TEST_CASE("activations' row sums do not depend on the number of threads", "[activation]") {
  const Shape shape{53, 1100};
  Swiglu s(DType::f32, shape, 0);
  require_same_for_any_threads([&] {
    HostTensor sums(DType::f32, {shape[0]});
    run_op([&](Exec& e) {
      ops::swiglu_backward(e, s.dgate.tensor(), s.dup.tensor(), s.dout.tensor(), s.gate.tensor(), s.up.tensor(),
                           sums.tensor());
    });
    return sums;
  });
  require_same_for_any_threads([&] {
    HostTensor sums(DType::f32, {shape[0]});
    run_op([&](Exec& e) { ops::gelu_backward(e, s.dgate.tensor(), s.dout.tensor(), s.gate.tensor(), sums.tensor()); });
    return sums;
  });
}

TEST_CASE("activations mix f32 and bf16", "[activation]") {
  const Shape shape{4, 1027};
  HostTensor gate = HostTensor::random(DType::bf16, shape, 1), up = HostTensor::random(DType::f32, shape, 2);
  HostTensor out(DType::f32, shape);
  run_op([&](Exec& e) { ops::swiglu_forward(e, out.tensor(), gate.tensor(), up.tensor()); });
  for (int64_t i = 0; i < out.size(); ++i) {
    const double want = silu(gate.get(i)) * up.get(i);
    require_near(out, i, want, std::fabs(want));
  }
}

TEST_CASE("activations name the argument that is wrong", "[activation]") {
  HostTensor a(DType::f32, {2, 3}), b(DType::f32, {3, 2}), doubles(DType::f64, {2, 3}), ids(DType::i32, {2, 3});
  const auto swiglu = [](Tensor out, Tensor gate, Tensor up) {
    return [=](Exec& e) { ops::swiglu_forward(e, out, gate, up); };
  };
  require_error(swiglu(a.tensor(), a.tensor(), b.tensor()), {"swiglu_forward", "up", "[3, 2]", "[2, 3]"});
  require_error(swiglu(a.tensor(), a.tensor(), doubles.tensor()), {"swiglu_forward", "up", "f64"});
  require_error(swiglu(ids.tensor(), a.tensor(), a.tensor()), {"swiglu_forward", "out", "i32"});
  require_error([&](Exec& e) { ops::gelu_backward(e, b.tensor(), a.tensor(), a.tensor()); },
                {"gelu_backward", "dx", "[3, 2]"});
  require_error([&](Exec& e) { ops::gelu_backward(e, a.tensor(), a.tensor(), a.tensor(), a.tensor()); },
                {"gelu_backward", "row_sums", "[2, 3]", "[2]"});
}

}  // namespace llmz::test
