#include "cuda/twins.h"
#include "llmz/ops/elementwise.h"
#include "llmz/ops/optimizer.h"

namespace llmz::test {
namespace {

struct Precision {
  DType weight, moments, gradient;
  bool shadow = false, stochastic = false;
};
constexpr Precision kPrecisions[] = {
    {DType::f32, DType::f32, DType::f32},
    {DType::bf16, DType::f32, DType::f32},
    {DType::bf16, DType::bf16, DType::f32},
    {DType::f32, DType::f32, DType::f32, true, false},
    {DType::bf16, DType::f32, DType::f32, false, true},
    {DType::bf16, DType::bf16, DType::bf16, false, true},
};

/// The weights of `p`, their moments, a gradient; `second` moments are not negative.
struct State {
  HostTensor weight, m, v, grad, shadow, scale;
  State(const Precision& p, Shape shape, Shape grad_shape)
      : weight(HostTensor::random(p.weight, shape, fresh_seed())),
        m(HostTensor::random(p.moments, grad_shape, fresh_seed(), 0.1)),
        v(HostTensor::random(p.moments, grad_shape, fresh_seed(), 0.1)),
        grad(HostTensor::random(p.gradient, grad_shape, fresh_seed())),
        shadow(DType::bf16, shape),
        scale(DType::f32, {1}) {
    for (int64_t i = 0; i < v.size(); ++i) v.set(i, std::fabs(v.get(i)) + 1e-3);
    scale.set(0, 0.37);
  }
  std::vector<HostTensor*> all() { return {&weight, &m, &v, &grad, &shadow, &scale}; }
};

ops::WeightRounding rounding_of(const Precision& p, const Tensor& shadow, uint64_t first = 40) {
  ops::WeightRounding rounding;
  if (p.shadow) rounding.shadow = shadow;
  if (p.stochastic) rounding.stochastic = RandomStream(5, Purpose::weight_rounding, 3);
  rounding.first = first;
  return rounding;
}

/// A bf16 that is rounded at random falls to the other side where the two twins' f32 values differ in the last bit:
/// one unit of bf16, 2^-7 of an element at most, which kBf16 holds.
double tolerance_of(const Precision& p) {
  return p.weight == DType::bf16 || p.moments == DType::bf16 ? kBf16 : p.shadow ? kBf16 : kF32;
}

}  // namespace

TEST_CASE("adamw: the CUDA twin agrees with the CPU's in every precision") {
  for (const Precision& p : kPrecisions) {
    for (const Shape& shape : {Shape{1}, {7}, {5, 33}, {16, 64}, {3, 1025}}) {
      for (uint64_t first : {uint64_t{40}, uint64_t{41}}) {
        INFO(dtype_name(p.weight) << " weights, " << dtype_name(p.moments) << " moments " << shape.str()
                                  << (p.shadow ? ", shadow" : "") << (p.stochastic ? ", stochastic" : ""));
        State s(p, shape, shape);
        compare_twins(s.all(), tolerance_of(p), [&](Exec& e, const Tensors& t) {
          ops::adamw(e, {{.weight = t[0],
                          .grad = t[3],
                          .grad_scale = t[5],
                          .lr = 0.01f,
                          .weight_decay = 0.1f,
                          .step = 3,
                          .rounding = rounding_of(p, t[4], first)},
                         {},
                         t[1],
                         t[2]});
        });
      }
    }
  }
}

TEST_CASE("adamw: a shadow is the master's rounding, to the bit") {
  const Precision p = kPrecisions[3];
  State s(p, {9, 31}, {9, 31});
  run_on_gpu(s.all(), [&](Exec& e, const Tensors& t) {
    ops::adamw(e, {{.weight = t[0], .grad = t[3], .lr = 0.01f, .rounding = rounding_of(p, t[4])}, {}, t[1], t[2]});
  });
  for (int64_t i = 0; i < s.weight.size(); ++i) {
    REQUIRE(s.shadow.get(i) == static_cast<double>(static_cast<float>(bf16(static_cast<float>(s.weight.get(i))))));
  }
}

TEST_CASE("round_stochastically: the twins make the same choices, right on average") {
  for (int64_t width : {1, 37, 1030}) {
    HostTensor in = HostTensor::random(DType::f32, {5, width}, fresh_seed(), 1.0, 3), out(DType::bf16, {5, width});
    compare_twins({&out, &in}, 0, [](Exec& e, const Tensors& t) {
      ops::round_stochastically(e, t[0], t[1], RandomStream(1, Purpose::test, 2), 12345);
    });
  }
  constexpr int64_t kDraws = 20000;
  HostTensor in(DType::f32, {kDraws}), out(DType::bf16, {kDraws});
  const double value = 1.0 + 0.3 / 128;  // bf16's neighbours: 1 and 1 + 1/128
  for (int64_t i = 0; i < kDraws; ++i) in.set(i, value);
  run_on_gpu({&out, &in}, [](Exec& e, const Tensors& t) {
    ops::round_stochastically(e, t[0], t[1], RandomStream(9, Purpose::test, 2), 0);
  });
  double mean = 0;
  for (int64_t i = 0; i < kDraws; ++i) mean += out.get(i) / kDraws;
  const double standard_error = std::sqrt(0.3 * 0.7 / kDraws) / 128;
  CHECK(std::fabs(mean - value) < 4 * standard_error);
}

TEST_CASE("sum_of_squares and clip_coefficient: CUDA twins agree with the CPU's") {
  for (DType type : {DType::f32, DType::bf16}) {
    for (const Shape& shape : {Shape{1}, {1000}, {33, 65}, {4, 4096}}) {
      HostTensor x = HostTensor::random(type, shape, fresh_seed()), total(DType::f32, {1});
      total.set(0, 0.5);
      compare_twins({&total, &x}, kF32, [](Exec& e, const Tensors& t) { ops::sum_of_squares(e, t[0], t[1]); });
    }
  }
  for (double squares : {0.0, 0.25, 400.0, std::nan("")}) {
    for (float most : {0.0f, 1.0f}) {
      HostTensor norm(DType::f32, {1}), scale(DType::f32, {1}), total(DType::f32, {1});
      total.set(0, squares);
      const auto body = [&](Exec& e, const Tensors& t) { ops::clip_coefficient(e, t[0], t[1], t[2], most); };
      if (squares == squares) {
        compare_twins({&norm, &scale, &total}, 1e-6, body);
        const double root = std::sqrt(squares), wanted = most == 0.0f ? 1.0 : std::min(1.0, 1.0 / (root + 1e-6));
        CHECK(norm.get(0) == Approx(root).epsilon(1e-6));
        CHECK(scale.get(0) == Approx(wanted).epsilon(1e-6));
      } else {
        run_on_gpu({&norm, &scale, &total}, body);
        CHECK(std::isnan(norm.get(0)));
        CHECK((most == 0.0f ? scale.get(0) == 1.0 : std::isnan(scale.get(0))));
      }
    }
  }
}

namespace {

/// Projector bases as tensors 6 and 7 of a call.
Projector projector_of(const Projector& shape, const Tensors& t) {
  Projector p = shape;
  if (p.principal_rank > 0) p.principal = t[6];
  if (p.random == Projector::Random::basis) p.random_basis = t[7];
  return p;
}

}  // namespace

TEST_CASE("projected_adam: the CUDA twin agrees with the CPU's, through Philox and the tensor cores too") {
  using Random = Projector::Random;
  const Projector shapes[] = {
      {.width = 64, .random_rank = 16, .random = Random::gaussian, .seed = 11, .layer = 4},
      {.width = 133, .random_rank = 33, .random = Random::gaussian, .seed = 12, .layer = 5},
      {.width = 200, .random_rank = 130, .random = Random::gaussian, .seed = 13, .layer = 6},
      {.width = 65, .random_rank = 16, .random = Random::sign, .seed = 14, .layer = 7},
      {.width = 64, .principal_rank = 5, .random_rank = 6, .random = Random::basis},
      {.width = 64, .principal_rank = 8, .random = Random::none},
  };
  for (const Precision& p : kPrecisions) {
    for (const Projector& shape : shapes) {
      for (int64_t rows : {3, 70}) {
        INFO(dtype_name(p.weight) << " weights, width " << shape.width << ", kind " << static_cast<int>(shape.random)
                                  << ", rank " << shape.rank() << ", " << rows << " rows"
                                  << (p.shadow ? ", shadow" : "") << (p.stochastic ? ", stochastic" : ""));
        State s(p, {rows, shape.width}, {rows, shape.rank()});
        HostTensor principal = HostTensor::random(DType::f32, {std::max<int64_t>(1, shape.principal_rank), shape.width},
                                                  fresh_seed(), 0.1);
        HostTensor basis =
            HostTensor::random(DType::f32, {std::max<int64_t>(1, shape.random_rank), shape.width}, fresh_seed(), 0.1);
        auto tensors = s.all();
        tensors.insert(tensors.end(), {&principal, &basis});
        compare_twins(tensors, tolerance_of(p), [&](Exec& e, const Tensors& t) {
          const Projector now = projector_of(shape, t);
          ops::projected_adam(e, {{.weight = t[0],
                                   .low = {.factor = t[3], .projector = &now},
                                   .grad_scale = t[5],
                                   .lr = 0.01f,
                                   .weight_decay = 0.1f,
                                   .step = 3,
                                   .rounding = rounding_of(p, t[4])},
                                  {},
                                  t[1],
                                  t[2]});
        });
      }
    }
  }
}

}  // namespace llmz::test
