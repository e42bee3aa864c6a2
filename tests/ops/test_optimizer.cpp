#include "llmz/ops/optimizer.h"

#include <cmath>
#include <limits>

#include "ops/checks.h"
#include "ops/fixture.h"
#include "ops/reference.h"

namespace llmz::test {
namespace {

/// Storage of the weights and gradients, and of the moments.
struct Mix {
  DType weights, moments;
};
const Mix kMixes[] = {
    {DType::f32, DType::f32}, {DType::bf16, DType::f32}, {DType::bf16, DType::bf16}, {DType::f64, DType::f64}};

/// Algorithm 2 of Loshchilov & Hutter (2019) with the decay taken first, as PyTorch does, one element in double.
struct PlainAdamW {
  double w, m = 0, v = 0;
  void step(const ops::AdamWArgs& a, double grad, double scale) {
    const double lr = static_cast<double>(a.lr), beta1 = static_cast<double>(a.beta1);
    const double beta2 = static_cast<double>(a.beta2), eps = static_cast<double>(a.eps);
    const double g = grad * scale;
    w -= lr * static_cast<double>(a.weight_decay) * w;
    m = beta1 * m + (1 - beta1) * g;
    v = beta2 * v + (1 - beta2) * g * g;
    const double m_hat = m / (1 - std::pow(beta1, static_cast<double>(a.step)));
    const double v_hat = v / (1 - std::pow(beta2, static_cast<double>(a.step)));
    w -= lr * m_hat / (std::sqrt(v_hat) + eps);
  }
};

/// The op beside the plain transcription, over several steps of one parameter tensor.
struct AdamWRun {
  HostTensor weight, grad, m, v, scale;
  std::vector<PlainAdamW> plain;

  AdamWRun(const Mix& mix, const Shape& shape)
      : weight(HostTensor::random(mix.weights, shape, 1)),
        grad(mix.weights, shape),
        m(mix.moments, shape),
        v(mix.moments, shape),
        scale(DType::f32, {1}) {
    for (double w : weight.values()) plain.push_back({w});
    scale.set(0, 0.37);
  }

  void step(int64_t number, bool scaled) {
    grad = HostTensor::random(grad.dtype(), grad.shape(), static_cast<unsigned>(number + 10), 0.1);
    grad.set(0, 0.0);
    ops::AdamWArgs args{{.weight = weight.tensor(), .grad = grad.tensor()}, {}, m.tensor(), v.tensor()};
    if (scaled) args.grad_scale = scale.tensor();
    args.lr = 1e-2f * static_cast<float>(number);
    args.weight_decay = 0.1f;
    args.beta2 = 0.95f;
    args.step = number;
    run_op([&](Exec& e) { ops::adamw(e, args); });
    const double factor = scaled ? scale.get(0) : 1.0;
    for (int64_t i = 0; i < weight.size(); ++i) plain[static_cast<size_t>(i)].step(args, grad.get(i), factor);
  }

  void adopt_storage() {
    for (int64_t i = 0; i < weight.size(); ++i) {
      plain[static_cast<size_t>(i)] = {weight.get(i), m.get(i), v.get(i)};
    }
  }

  std::vector<double> want(double PlainAdamW::*member) const {
    std::vector<double> values;
    for (const PlainAdamW& p : plain) values.push_back(p.*member);
    return values;
  }
};

double sum_of_squares(HostTensor& x, double start = 0) {
  HostTensor total(x.dtype() == DType::f64 ? DType::f64 : DType::f32, {1});
  total.set(0, start);
  run_op([&](Exec& e) { ops::sum_of_squares(e, total.tensor(), x.tensor()); });
  return total.get(0);
}

}  // namespace

TEST_CASE("adamw follows the algorithm written out in double", "[optimizer]") {
  for (const Mix& mix : kMixes) {
    for (const Shape& shape : {Shape{1}, Shape{37}, Shape{3, 7}, Shape{9, 1031}}) {
      for (bool scaled : {false, true}) {
        INFO(dtype_name(mix.weights) << " moments " << dtype_name(mix.moments) << " " << shape.str());
        AdamWRun run(mix, shape);
        for (int64_t number = 1; number <= 7; ++number) {
          run.step(number, scaled);
          // About ten fp32 (fp64) operations on weights below 8, and one rounding each of w, m and v as stored; the
          // update itself is at most lr·10 < 1.
          const double arithmetic = 64 * rounding(mix.weights == DType::f64 ? DType::f64 : DType::f32);
          require_close(run.weight, run.want(&PlainAdamW::w), arithmetic, 1.01 * rounding(mix.weights));
          require_close(run.m, run.want(&PlainAdamW::m), arithmetic * 0.1, arithmetic + 1.01 * rounding(mix.moments));
          require_close(run.v, run.want(&PlainAdamW::v), arithmetic * 0.01, arithmetic + 1.01 * rounding(mix.moments));
          run.adopt_storage();  // so that the roundings of storage do not pile up
        }
      }
    }
  }
}

TEST_CASE("adamw in fp32 stays with the double trajectory", "[optimizer]") {
  AdamWRun run({DType::f32, DType::f32}, {101});
  for (int64_t number = 1; number <= 20; ++number) run.step(number, false);
  // 20 steps, each of about ten roundings of weights and updates below 8.
  require_close(run.weight, run.want(&PlainAdamW::w), 20 * 10 * 8 * rounding(DType::f32), 0);
}

TEST_CASE("adamw's first step moves by lr against the gradient's sign", "[optimizer]") {
  float w[] = {1, 1, 1}, g[] = {3e-3f, -200, 0}, m[3] = {}, v[3] = {};
  const auto tensor = [](float* x) { return Tensor(x, DType::f32, {3}); };
  const ops::AdamWArgs args{{.weight = tensor(w), .grad = tensor(g), .lr = 0.125f}, {}, tensor(m), tensor(v)};
  run_op([&](Exec& e) { ops::adamw(e, args); });
  CHECK(w[0] == Approx(0.875).epsilon(1e-5));  // eps/|g| = 3e-6
  CHECK(w[1] == Approx(1.125).epsilon(1e-6));
  CHECK(w[2] == 1.0f);
}

TEST_CASE("sum_of_squares sums, accumulates and passes gaps over", "[optimizer]") {
  for (DType type : {DType::f32, DType::bf16, DType::f64}) {
    for (const Shape& shape : {Shape{1}, Shape{37}, Shape{3, 7}, Shape{19, 1031}, Shape{2, 3, 5}, Shape{200003}}) {
      for (int64_t gap : {0, 3}) {
        HostTensor x = HostTensor::random(type, shape, 1, 1.0, gap);
        double want = 2.5;
        for (double value : x.values()) want += value * value;
        INFO(dtype_name(type) << " " << shape.str() << " gap " << gap);
        // Lanes over chunks of 1024 in fp32 (fp64), then double: at most 64 terms a lane and their sum.
        const double relative = 128 * rounding(type == DType::f64 ? DType::f64 : DType::f32);
        CHECK(std::fabs(sum_of_squares(x, 2.5) - want) <= relative * want);
      }
    }
  }
}

TEST_CASE("sum_of_squares has the same bits for any number of threads", "[optimizer]") {
  require_same_for_any_threads([] {
    HostTensor x = HostTensor::random(DType::f32, {300007}, 1), total(DType::f32, {1});
    run_op([&](Exec& e) { ops::sum_of_squares(e, total.tensor(), x.tensor()); });
    return total;
  });
}

TEST_CASE("sum_of_squares does not depend on the buffer's address", "[optimizer]") {
  HostTensor x = HostTensor::random(DType::f32, {5003}, 1);
  const double want = sum_of_squares(x);
  for (size_t bytes = 0; bytes < 64; bytes += sizeof(float)) {
    std::vector<std::byte> store;
    HostTensor total(DType::f32, {1});
    run_op([&, moved = at_address(x, bytes, store)](Exec& e) { ops::sum_of_squares(e, total.tensor(), moved); });
    CHECK(total.get(0) == want);
  }
}

TEST_CASE("sum_of_squares lets NaN and infinity through", "[optimizer]") {
  for (DType type : {DType::f32, DType::bf16, DType::f64}) {
    for (int64_t at : {int64_t{0}, int64_t{70000}, int64_t{150000}}) {
      HostTensor x = HostTensor::random(type, {150001}, 1);
      x.set(at, std::numeric_limits<double>::quiet_NaN());
      CHECK(std::isnan(sum_of_squares(x)));
      x.set(at, -std::numeric_limits<double>::infinity());
      CHECK(sum_of_squares(x) == std::numeric_limits<double>::infinity());
    }
  }
}

TEST_CASE("clip_coefficient is PyTorch's clip_grad_norm_", "[optimizer]") {
  const auto clip = [](double total, float max_norm, DType type = DType::f32) {
    HostTensor norm(DType::f32, {1}), scale(DType::f32, {1}), squares(type, {1});
    squares.set(0, total);
    run_op([&](Exec& e) { ops::clip_coefficient(e, norm.tensor(), scale.tensor(), squares.tensor(), max_norm); });
    return std::pair{norm.get(0), scale.get(0)};
  };
  CHECK(clip(16, 1).first == 4.0);
  CHECK(clip(16, 1).second == Approx(1 / (4 + 1e-6)).epsilon(1e-7));
  CHECK(clip(16, 1, DType::f64).second == Approx(1 / (4 + 1e-6)).epsilon(1e-7));
  CHECK(clip(0.25, 1).second == 1.0);
  CHECK(clip(0, 1).second == 1.0);
  CHECK(clip(1e6, 0).second == 1.0);
  CHECK(std::isnan(clip(std::nan(""), 1).second));
  CHECK(clip(std::numeric_limits<double>::infinity(), 1).second == 0.0);
}

TEST_CASE("optimizer ops name the argument that is wrong", "[optimizer]") {
  HostTensor w(DType::f32, {2, 3}), other(DType::f32, {3, 2}), gaps(DType::f32, {2, 3}, 1), one(DType::f32, {1});
  const auto adamw = [&](Tensor grad, Tensor scale, int64_t step) {
    const ops::AdamWArgs args{
        {.weight = w.tensor(), .grad = grad, .grad_scale = scale, .step = step}, {}, w.tensor(), w.tensor()};
    return [args](Exec& e) { ops::adamw(e, args); };
  };
  require_error(adamw(other.tensor(), Tensor(), 1), {"adamw", "grad", "[3, 2]", "[2, 3]"});
  require_error(adamw(gaps.tensor(), Tensor(), 1), {"adamw", "grad", "contiguous"});
  require_error(adamw(w.tensor(), w.tensor(), 1), {"adamw", "grad_scale", "[2, 3]", "[1]"});
  require_error(adamw(w.tensor(), Tensor(), 0), {"adamw", "step is 0"});
  require_error([&](Exec& e) { ops::sum_of_squares(e, w.tensor(), w.tensor()); }, {"sum_of_squares", "total", "[1]"});
  require_error([&](Exec& e) { ops::clip_coefficient(e, one.tensor(), one.tensor(), one.tensor(), -1); },
                {"clip_coefficient", "max_norm is -1"});
}

}  // namespace llmz::test
