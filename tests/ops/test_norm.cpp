#include "llmz/ops/norm.h"

#include <cmath>

#include "ops/checks.h"
#include "ops/fixture.h"
#include "ops/reference.h"

namespace llmz::test {
namespace {

constexpr float kEps = 1e-5f;

/// Storage of activations (x, out, dy, dx), of x̂, and of gain and bias.
struct Mix {
  DType activations, xhat, parameters;
  bool is_double() const { return activations == DType::f64; }
  DType statistic() const { return is_double() ? DType::f64 : DType::f32; }
};
const Mix kMixes[] = {{DType::f32, DType::f32, DType::f32},   {DType::bf16, DType::bf16, DType::bf16},
                      {DType::bf16, DType::bf16, DType::f32}, {DType::f32, DType::bf16, DType::f32},
                      {DType::bf16, DType::f32, DType::f32},  {DType::f64, DType::f64, DType::f64}};
// One element; below and past a vector; odd; more rows than a block of sums; wider than a chunk of 1024.
const Shape kShapes[] = {{1, 1}, {3, 5}, {7, 64}, {37, 65}, {101, 33}, {5, 1031}, {2, 2051}};

struct Norm {
  bool layer;
  Mix mix;
  Shape shape;
  HostTensor x, gain, bias, out, xhat, rstd;

  Norm(bool is_layer, const Mix& m, const Shape& s, int64_t gap = 0) : layer(is_layer), mix(m), shape(s) {
    x = HostTensor::random(m.activations, s, 1, 2.0, gap);
    for (int64_t i = 0; i < x.size(); ++i) x.set(i, x.get(i) + 0.5);  // a mean to take away
    gain = HostTensor::random(m.parameters, {s[1]}, 2);
    bias = HostTensor::random(m.parameters, {s[1]}, 3);
    out = HostTensor(m.activations, s, gap);
    xhat = HostTensor(m.xhat, s, gap);
    rstd = HostTensor(m.statistic(), {s[0]});
  }

  void forward(bool keep_xhat = true) {
    run_op([&](Exec& e) {
      const Tensor kept = keep_xhat ? xhat.tensor() : Tensor();
      if (layer) {
        ops::layernorm_forward(e, out.tensor(), kept, rstd.tensor(), x.tensor(), gain.tensor(), bias.tensor(), kEps);
      } else {
        ops::rmsnorm_forward(e, out.tensor(), kept, rstd.tensor(), x.tensor(), gain.tensor(), kEps);
      }
    });
  }

  /// Straight from the papers' formulas, in double.
  void reference(std::vector<double>& want_out, std::vector<double>& want_xhat, std::vector<double>& want_rstd) const {
    const int64_t width = shape[1];
    for (int64_t t = 0; t < shape[0]; ++t) {
      double mean = 0, variance = 0;
      for (int64_t i = 0; i < width; ++i) mean += x.get(t * width + i) / static_cast<double>(width);
      if (!layer) mean = 0;
      for (int64_t i = 0; i < width; ++i) {
        variance += std::pow(x.get(t * width + i) - mean, 2) / static_cast<double>(width);
      }
      want_rstd.push_back(1 / std::sqrt(variance + static_cast<double>(kEps)));
      for (int64_t i = 0; i < width; ++i) {
        want_xhat.push_back((x.get(t * width + i) - mean) * want_rstd.back());
        want_out.push_back(want_xhat.back() * gain.get(i) + (layer ? bias.get(i) : 0.0));
      }
    }
  }

  /// Error of fp32 (or fp64) arithmetic: the mean and the sum of squares (pairwise-like over lanes) and a handful of
  /// further roundings, of numbers up to about 10 in size.
  double arithmetic() const { return 64 * rounding(mix.is_double() ? DType::f64 : DType::f32); }
};

void check_forward(bool layer, const Mix& mix, const Shape& shape, int64_t gap) {
  Norm n(layer, mix, shape, gap);
  n.forward();
  std::vector<double> out, xhat, rstd;
  n.reference(out, xhat, rstd);
  require_close(n.rstd, rstd, 0, n.arithmetic());
  require_close(n.xhat, xhat, n.arithmetic(), n.arithmetic() + rounding(mix.xhat));
  // `out` is made from the stored x̂, so its rounding comes through the gain (and a bias may cancel the size of it).
  for (size_t i = 0; i < out.size(); ++i) {
    const double product = std::fabs(xhat[i] * n.gain.get(static_cast<int64_t>(i) % shape[1]));
    const double allowed = (n.arithmetic() + rounding(mix.xhat)) * (product + 1e-30) + 4 * n.arithmetic() +
                           1.01 * rounding(mix.activations) * (std::fabs(out[i]) + rounding(mix.xhat) * product);
    INFO("element " << i);
    REQUIRE(std::fabs(n.out.get(static_cast<int64_t>(i)) - out[i]) <= allowed);
  }
  REQUIRE((n.out.gaps_intact() && n.xhat.gaps_intact()));
}

/// Gradients by the same formulas from what forward stored, in double; added to what the tensors hold.
struct Gradients {
  std::vector<double> dx, dgain, dbias;
  Gradients(const Norm& n, const HostTensor& dy, const HostTensor& dx0, const HostTensor& dgain0,
            const HostTensor& dbias0, const HostTensor* row_sums = nullptr)
      : dx(dx0.values()), dgain(dgain0.values()), dbias(dbias0.values()) {
    const int64_t width = n.shape[1];
    const auto w = static_cast<double>(width);
    for (int64_t t = 0; t < n.shape[0]; ++t) {
      double plain = 0, with_xhat = 0;
      for (int64_t i = 0; i < width; ++i) {
        const double d = dy.get(t * width + i) * n.gain.get(i);
        if (n.layer) plain += d / w;
        with_xhat += d * n.xhat.get(t * width + i) / w;
      }
      if (row_sums != nullptr) with_xhat = row_sums->get(t) / w;
      for (int64_t i = 0; i < width; ++i) {
        const int64_t at = t * width + i;
        const size_t column = static_cast<size_t>(i);
        dx[static_cast<size_t>(at)] +=
            n.rstd.get(t) * (dy.get(at) * n.gain.get(i) - plain - n.xhat.get(at) * with_xhat);
        dgain[column] += dy.get(at) * n.xhat.get(at);
        dbias[column] += dy.get(at);
      }
    }
  }
};

void run_backward(Norm& n, HostTensor& dx, HostTensor& dgain, HostTensor& dbias, HostTensor& dy, Tensor row_sums = {}) {
  run_op([&](Exec& e) {
    if (n.layer) {
      ops::layernorm_backward(e, dx.tensor(), dgain.tensor(), dbias.tensor(), dy.tensor(), n.xhat.tensor(),
                              n.rstd.tensor(), n.gain.tensor(), row_sums);
    } else {
      ops::rmsnorm_backward(e, dx.tensor(), dgain.tensor(), dy.tensor(), n.xhat.tensor(), n.rstd.tensor(),
                            n.gain.tensor(), row_sums);
    }
  });
}

/// `with_sums`: an x̂ that is only roughly what forward made, and sums that are not its own.
void check_backward(bool layer, const Mix& mix, const Shape& shape, int64_t gap, bool with_sums = false) {
  Norm n(layer, mix, shape, gap);
  n.forward();
  HostTensor dy = HostTensor::random(mix.activations, shape, 4, 1.0, gap);
  HostTensor dx = HostTensor::random(mix.activations, shape, 5, 1.0, gap);
  HostTensor dgain = HostTensor::random(mix.parameters, {shape[1]}, 6);
  HostTensor dbias = HostTensor::random(mix.parameters, {shape[1]}, 7);
  HostTensor sums = HostTensor::random(mix.statistic(), {shape[0]}, 8, std::sqrt(static_cast<double>(shape[1])));
  if (with_sums) n.xhat = HostTensor::random(mix.xhat, shape, 9, 1.0, gap);
  const Gradients want(n, dy, dx, dgain, dbias, with_sums ? &sums : nullptr);
  run_backward(n, dx, dgain, dbias, dy, with_sums ? sums.tensor() : Tensor());
  // A width of 1 makes rstd as large as 1/√eps ~ 300 where x is near its mean; the cancellation scales with it.
  double largest_rstd = 1;
  for (double r : n.rstd.values()) largest_rstd = std::max(largest_rstd, r);
  require_close(dx, want.dx, n.arithmetic() * largest_rstd, n.arithmetic() + 1.01 * rounding(mix.activations));
  const double sum_error = n.arithmetic() * std::sqrt(static_cast<double>(shape[0]));
  require_close(dgain, want.dgain, sum_error, sum_error + 1.01 * rounding(mix.parameters));
  if (layer) require_close(dbias, want.dbias, sum_error, sum_error + 1.01 * rounding(mix.parameters));
  REQUIRE(dx.gaps_intact());
}

/// Gradients by x, gain and bias of Σ dy·out, through the op's own forward in double.
void check_differences(bool layer) {
  Norm n(layer, {DType::f64, DType::f64, DType::f64}, {3, 7});
  HostTensor dy = HostTensor::random(DType::f64, n.shape, 4);
  n.forward();
  HostTensor dx(DType::f64, n.shape), dgain(DType::f64, {7}), dbias(DType::f64, {7});
  run_backward(n, dx, dgain, dbias, dy);
  const auto loss = [&] {
    n.forward();
    return weighted_sum(n.out, dy);
  };
  const double tolerance = 1e-8;  // see central_difference, with sums of 21 terms
  require_close(dx, central_difference(n.x, loss), tolerance, tolerance);
  require_close(dgain, central_difference(n.gain, loss), tolerance, tolerance);
  if (layer) require_close(dbias, central_difference(n.bias, loss), tolerance, tolerance);
}

}  // namespace

TEST_CASE("norm forward equals the formulas in double", "[norm]") {
  for (bool layer : {false, true}) {
    for (const Mix& mix : kMixes) {
      for (const Shape& shape : kShapes) {
        for (int64_t gap : {0, 3}) {
          INFO((layer ? "layernorm " : "rmsnorm ") << shape.str() << " gap " << gap << " x "
                                                   << dtype_name(mix.activations) << " xhat " << dtype_name(mix.xhat));
          check_forward(layer, mix, shape, gap);
        }
      }
    }
  }
}

TEST_CASE("norm backward equals the formulas in double and accumulates", "[norm]") {
  for (bool layer : {false, true}) {
    for (const Mix& mix : kMixes) {
      for (const Shape& shape : kShapes) {
        for (int64_t gap : {0, 3}) {
          INFO((layer ? "layernorm " : "rmsnorm ") << shape.str() << " gap " << gap << " x "
                                                   << dtype_name(mix.activations) << " xhat " << dtype_name(mix.xhat));
          check_backward(layer, mix, shape, gap);
        }
      }
    }
  }
}

TEST_CASE("norm backward takes given row sums for those of an approximate xhat", "[norm]") {
  for (bool layer : {false, true}) {
    for (const Mix& mix : kMixes) {
      for (const Shape& shape : kShapes) {
        for (int64_t gap : {0, 3}) {
          INFO((layer ? "layernorm " : "rmsnorm ") << shape.str() << " gap " << gap << " x "
                                                   << dtype_name(mix.activations) << " xhat " << dtype_name(mix.xhat));
          check_backward(layer, mix, shape, gap, true);
        }
      }
    }
  }
}

TEST_CASE("norm gradients are the slopes of forward", "[norm]") {
  check_differences(false);
  check_differences(true);
}

TEST_CASE("norm_apply_gain repeats forward's output bit for bit", "[norm]") {
  for (bool layer : {false, true}) {
    for (const Mix& mix : kMixes) {
      for (const Shape& shape : kShapes) {
        Norm n(layer, mix, shape, 1);
        n.forward();
        HostTensor again(mix.activations, shape, 1);
        run_op([&](Exec& e) {
          ops::norm_apply_gain(e, again.tensor(), n.xhat.tensor(), n.gain.tensor(), layer ? n.bias.tensor() : Tensor());
        });
        INFO((layer ? "layernorm " : "rmsnorm ") << shape.str());
        CHECK(again.same_bits(n.out));
      }
    }
  }
}

TEST_CASE("norm forward without xhat gives the same output where xhat is not rounded", "[norm]") {
  for (bool layer : {false, true}) {
    Norm kept(layer, kMixes[0], {37, 65}), not_kept(layer, kMixes[0], {37, 65});
    kept.forward(true);
    not_kept.forward(false);
    CHECK(kept.out.same_bits(not_kept.out));
    CHECK(kept.rstd.same_bits(not_kept.rstd));
  }
}

TEST_CASE("norm forward does not depend on the buffers' addresses", "[norm]") {
  for (bool layer : {false, true}) {
    Norm aligned(layer, kMixes[0], {7, 1031});
    aligned.forward();
    for (size_t bytes = 0; bytes < 64; bytes += sizeof(float)) {
      std::vector<std::byte> x_store, gain_store;
      Norm moved(layer, kMixes[0], {7, 1031});
      const Tensor x = at_address(moved.x, bytes, x_store), gain = at_address(moved.gain, 60 - bytes, gain_store);
      run_op([&](Exec& e) {
        if (layer) {
          ops::layernorm_forward(e, moved.out.tensor(), moved.xhat.tensor(), moved.rstd.tensor(), x, gain,
                                 moved.bias.tensor(), kEps);
        } else {
          ops::rmsnorm_forward(e, moved.out.tensor(), moved.xhat.tensor(), moved.rstd.tensor(), x, gain, kEps);
        }
      });
      CHECK(moved.out.same_bits(aligned.out));
      CHECK(moved.rstd.same_bits(aligned.rstd));
    }
  }
}

TEST_CASE("norm gradients do not depend on the number of threads", "[norm]") {
  const auto gradient = [](bool of_gain) {
    Norm n(true, kMixes[0], {333, 65});
    n.forward();
    HostTensor dy = HostTensor::random(DType::f32, n.shape, 4), dx(DType::f32, n.shape);
    HostTensor dgain(DType::f32, {65}), dbias(DType::f32, {65});
    run_backward(n, dx, dgain, dbias, dy);
    return of_gain ? dgain : dbias;
  };
  require_same_for_any_threads([&] { return gradient(true); });
  require_same_for_any_threads([&] { return gradient(false); });
  for (bool layer : {false, true}) {
    require_same_for_any_threads([&] {
      Norm n(layer, kMixes[0], {333, 65});
      n.forward();
      HostTensor dy = HostTensor::random(DType::f32, n.shape, 4), dx(DType::f32, n.shape);
      HostTensor dgain(DType::f32, {65}), dbias(DType::f32, {65}), sums = HostTensor::random(DType::f32, {333}, 5);
      run_backward(n, dx, dgain, dbias, dy, sums.tensor());
      return dx;
    });
  }
}

TEST_CASE("norms name the argument that is wrong", "[norm]") {
  Norm n(true, kMixes[0], {3, 5});
  HostTensor wide(DType::f32, {3, 6}), bf16_rstd(DType::bf16, {3}), doubles(DType::f64, {5});
  const auto forward = [&](Tensor out, Tensor rstd, Tensor gain) {
    return [=, x = n.x.tensor()](Exec& e) { ops::rmsnorm_forward(e, out, Tensor(), rstd, x, gain, kEps); };
  };
  const Tensor out = n.out.tensor(), rstd = n.rstd.tensor(), gain = n.gain.tensor();
  require_error(forward(wide.tensor(), rstd, gain), {"rmsnorm_forward", "out", "[3, 6]", "[3, 5]"});
  require_error(forward(out, bf16_rstd.tensor(), gain), {"rmsnorm_forward", "rstd", "bf16"});
  require_error(forward(out, rstd, doubles.tensor()), {"rmsnorm_forward", "gain", "f64"});
  require_error(forward(out, rstd, Tensor()), {"rmsnorm_forward", "gain", "absent"});
  require_error([&](Exec& e) { ops::layernorm_backward(e, out, gain, wide.tensor(), out, out, rstd, gain); },
                {"layernorm_backward", "dbias", "[3, 6]", "[5]"});
  require_error([&](Exec& e) { ops::rmsnorm_backward(e, out, gain, out, out, rstd, gain, gain); },
                {"rmsnorm_backward", "row_sums", "[5]", "[3]"});
}

}  // namespace llmz::test
