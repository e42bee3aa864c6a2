#include "llmz/ops/projector.h"

#include <cmath>
#include <set>

#include "catch.h"
#include "llmz/ops/activation.h"
#include "llmz/ops/decompose.h"
#include "llmz/ops/norm.h"
#include "llmz/ops/optimizer.h"
#include "ops/checks.h"
#include "ops/projector_reference.h"

namespace llmz::test {
namespace {

constexpr int64_t kWidth = 29;

/// a [m,k]·b [k,n], b transposed where asked.
std::vector<double> product(const std::vector<double>& a, const std::vector<double>& b, int64_t m, int64_t k, int64_t n,
                            bool transpose_b = false) {
  std::vector<double> c(static_cast<size_t>(m * n));
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double sum = 0;
      for (int64_t q = 0; q < k; ++q) {
        sum += a[static_cast<size_t>(i * k + q)] * b[static_cast<size_t>(transpose_b ? j * k + q : q * n + j)];
      }
      c[static_cast<size_t>(i * n + j)] = sum;
    }
  }
  return c;
}

/// Sums of some 30 products of numbers below 4, rounded in the output's and the operands' types; fp32 Gaussian numbers
/// themselves are good to 2e-6, fp64 ones are the stream's own.
double tolerance(DType dtype) {
  return dtype == DType::bf16 ? 60 * rounding(DType::bf16) : dtype == DType::f64 ? 1e-12 : 4e-5;
}

struct Types {
  DType x, z, basis;
};
const Types kTypes[] = {{DType::f32, DType::f32, DType::f32},
                        {DType::bf16, DType::f32, DType::f32},
                        {DType::bf16, DType::bf16, DType::f32},
                        {DType::f64, DType::f64, DType::f64}};

}  // namespace

TEST_CASE("project is x·P and expand is z·Pᵀ for every kind of projector", "[projector]") {
  for (const ProjectorKind& kind : kProjectorKinds) {
    for (const Types& types : kTypes) {
      for (int64_t rows : {1, 13}) {
        INFO(kind.name << ", " << dtype_name(types.x) << " to " << dtype_name(types.z) << ", " << rows << " rows");
        ReferenceProjector p = make_projector(kind.random, kWidth, kind.r1, kind.r2, types.basis);
        const int64_t r = p.view.rank();
        HostTensor x = HostTensor::random(types.x, {rows, kWidth}, 1, 1.0, 5), z(types.z, {rows, r}, 3);
        run_op([&](Exec& e) { ops::project(e, z.tensor(), x.tensor(), p.view); });
        const double absolute = tolerance(types.z);
        require_close(z, product(x.values(), p.dense, rows, kWidth, r), absolute, absolute);
        CHECK(z.gaps_intact());

        for (bool accumulate : {false, true}) {
          HostTensor code = HostTensor::random(types.z, {rows, r}, 2);
          HostTensor out = HostTensor::random(types.x, {rows, kWidth}, 3, 1.0, 2);
          std::vector<double> want = product(code.values(), p.dense, rows, r, kWidth, /*transpose_b=*/true);
          for (size_t i = 0; i < want.size(); ++i) {
            want[i] = -0.5 * want[i] + (accumulate ? out.get(static_cast<int64_t>(i)) : 0.0);
          }
          run_op([&](Exec& e) {
            ops::expand(e, {.out = out.tensor(), .z = code.tensor(), .alpha = -0.5f, .accumulate = accumulate}, p.view);
          });
          const double loose = tolerance(types.x == DType::bf16 ? DType::bf16 : types.z);
          require_close(out, want, loose, loose);
          CHECK(out.gaps_intact());
        }
      }
    }
  }
}

TEST_CASE("a sign projector is a partition with groups that differ by at most one", "[projector]") {
  for (const auto& [n, r] : {std::pair<int64_t, int64_t>{29, 7}, {1376, 344}, {5, 5}, {6, 1}}) {
    const SignMap map(9, 2, n);
    std::set<int64_t> positions;
    std::vector<int64_t> sizes(static_cast<size_t>(r));
    int64_t plus = 0;
    for (int64_t i = 0; i < n; ++i) {
      const int64_t position = map.position(i);
      REQUIRE(position >= 0);
      REQUIRE(position < n);
      positions.insert(position);
      ++sizes[static_cast<size_t>(position % r)];
      plus += map.sign(i) > 0;
    }
    CHECK(static_cast<int64_t>(positions.size()) == n);
    for (int64_t size : sizes) CHECK((size == n / r || size == n / r + 1));
    if (n > 1000)
      CHECK(std::abs(static_cast<double>(plus) - static_cast<double>(n) / 2) <
            5 * std::sqrt(static_cast<double>(n)) / 2);
  }
}

TEST_CASE("pairs of features share a group as often as chance has it", "[projector]") {
  // Over 4000 seeds: neighbours, and features far apart. The standard error of a share of 1/6 is 0.006.
  constexpr int64_t n = 24, r = 6, draws = 4000;
  int64_t near = 0, far = 0;
  for (uint64_t seed = 0; seed < draws; ++seed) {
    const SignMap map(seed, 1, n);
    near += map.position(7) % r == map.position(8) % r;
    far += map.position(0) % r == map.position(20) % r;
  }
  const double wanted = (static_cast<double>(n) / static_cast<double>(r) - 1) / static_cast<double>(n - 1);
  CHECK(std::abs(static_cast<double>(near) / draws - wanted) < 0.025);
  CHECK(std::abs(static_cast<double>(far) / draws - wanted) < 0.025);
}

TEST_CASE("the fast normals of a Gaussian projector are the stream's", "[projector]") {
  // 3000 elements: pieces and a remainder. Identity in, P out.
  constexpr int64_t n = 60, r = 50;
  Projector p{.width = n, .random_rank = r, .random = Projector::Random::gaussian, .seed = 77, .layer = 4};
  HostTensor identity(DType::f32, {n, n}), z(DType::f32, {n, r});
  for (int64_t i = 0; i < n; ++i) identity.set(i * n + i, 1.0);
  run_op([&](Exec& e) { ops::project(e, z.tensor(), identity.tensor(), p); });
  const RandomStream stream(77, Purpose::projector, 4);
  std::vector<double> want;
  for (uint64_t i = 0; i < n * r; ++i) want.push_back(static_cast<double>(stream.normal(i)) / std::sqrt(50.0));
  // The angle 2π·v is rounded at up to 6.3 in the stream's own formula: 3e-7 times a radius of up to 6.7, over √50.
  require_close(z, want, 5e-7, 3e-6);
}

TEST_CASE("the norm of an expanded gradient is found without expanding it", "[projector]") {
  constexpr int64_t m = 11;
  for (const ProjectorKind& kind : kProjectorKinds) {
    for (DType dtype : {DType::f32, DType::f64}) {
      for (int extras : {0, 1, 2}) {  // nothing, a column scale, and an outer product too
        INFO(kind.name << ", " << dtype_name(dtype) << ", extras " << extras);
        ReferenceProjector p = make_projector(kind.random, kWidth, kind.r1, kind.r2, dtype);
        const int64_t r = p.view.rank();
        HostTensor factor = HostTensor::random(dtype, {m, r}, 1), scale = HostTensor::random(dtype, {kWidth}, 2);
        HostTensor u = HostTensor::random(dtype, {m}, 3), v = HostTensor::random(dtype, {kWidth}, 4);
        LowRankGrad grad{.factor = factor.tensor(), .projector = &p.view};
        if (extras >= 1) grad.column_scale = scale.tensor();
        if (extras >= 2) grad.row_term = u.tensor(), grad.column_term = v.tensor();
        std::vector<double> want = product(factor.values(), p.dense, m, r, kWidth, true);
        double squares = 0;
        for (int64_t i = 0; i < m; ++i) {
          for (int64_t j = 0; j < kWidth; ++j) {
            double& g = want[static_cast<size_t>(i * kWidth + j)];
            if (extras >= 1) g *= scale.get(j);
            if (extras >= 2) g += u.get(i) * v.get(j);
            squares += g * g;
          }
        }
        HostTensor total(dtype, {1}), expanded(dtype, {m - 2, kWidth});
        total.set(0, 3.0);
        run_op([&](Exec& e) { ops::expanded_sum_of_squares(e, total.tensor(), grad); });
        CHECK(total.get(0) == Approx(3.0 + squares).epsilon(dtype == DType::f64 ? 1e-12 : 2e-5));
        run_op([&](Exec& e) { ops::expand_gradient(e, expanded.tensor(), grad, 2); });
        require_close(expanded, std::vector<double>(want.begin() + 2 * kWidth, want.end()), tolerance(dtype),
                      tolerance(dtype));
      }
    }
  }
}

TEST_CASE("adamw and factored_adamw take a low-rank gradient as they take the expanded one", "[projector]") {
  constexpr int64_t m = 300;  // more than one tile
  for (const ProjectorKind& kind : kProjectorKinds) {
    INFO(kind.name);
    ReferenceProjector p = make_projector(kind.random, kWidth, kind.r1, kind.r2, DType::f64);
    HostTensor factor = HostTensor::random(DType::f64, {m, p.view.rank()}, 1);
    HostTensor scale = HostTensor::random(DType::f64, {kWidth}, 2), u = HostTensor::random(DType::f64, {m}, 3),
               v = HostTensor::random(DType::f64, {kWidth}, 4);
    const LowRankGrad low{.factor = factor.tensor(),
                          .projector = &p.view,
                          .column_scale = scale.tensor(),
                          .row_term = u.tensor(),
                          .column_term = v.tensor()};
    HostTensor dense(DType::f64, {m, kWidth});
    run_op([&](Exec& e) { ops::expand_gradient(e, dense.tensor(), low, 0); });
    for (bool factored : {false, true}) {
      std::vector<std::vector<double>> results;
      for (bool expanded : {false, true}) {
        HostTensor w = HostTensor::random(DType::f64, {m, kWidth}, 5), first(DType::f64, {m, kWidth}),
                   second(DType::f64, {m, kWidth}), row(DType::f64, {m}), column(DType::f64, {kWidth});
        for (int64_t step = 1; step <= 3; ++step) {
          run_op([&](Exec& e) {
            if (factored) {
              ops::FactoredAdamWArgs a{{.weight = w.tensor()}, {}, first.tensor()};
              a.row = row.tensor(), a.column = column.tensor();
              if (expanded) a.grad = dense.tensor();
              if (!expanded) a.low = low;
              a.lr = 0.1f, a.weight_decay = 0.2f, a.step = step;
              ops::factored_adamw(e, a);
            } else {
              ops::AdamWArgs a{{.weight = w.tensor()}, {}, first.tensor(), second.tensor()};
              if (expanded) a.grad = dense.tensor();
              if (!expanded) a.low = low;
              a.lr = 0.1f, a.weight_decay = 0.2f, a.step = step;
              ops::adamw(e, a);
            }
          });
        }
        results.push_back(w.values());
      }
      for (size_t i = 0; i < results[0].size(); ++i) REQUIRE(results[0][i] == Approx(results[1][i]).margin(1e-10));
    }
  }
}

TEST_CASE("projected_adam follows CompAct's algorithm", "[projector]") {
  constexpr int64_t m = 9;
  for (const ProjectorKind& kind : kProjectorKinds) {
    for (DType dtype : {DType::f32, DType::f64}) {
      INFO(kind.name << ", " << dtype_name(dtype));
      ReferenceProjector p = make_projector(kind.random, kWidth, kind.r1, kind.r2, dtype);
      const int64_t r = p.view.rank();
      HostTensor w = HostTensor::random(dtype, {m, kWidth}, 5), first(dtype, {m, r}), second(dtype, {m, r});
      HostTensor clip(DType::f32, {1});
      clip.set(0, 0.5);
      std::vector<double> weight = w.values(), mean(static_cast<size_t>(m * r)), square(static_cast<size_t>(m * r));
      for (int64_t step = 1; step <= 4; ++step) {
        HostTensor factor = HostTensor::random(dtype, {m, r}, static_cast<unsigned>(20 + step));
        const LowRankGrad low{.factor = factor.tensor(), .projector = &p.view};
        run_op([&](Exec& e) {
          // Dry runs must not count: moments change only in the live one, which is the second.
          ops::projected_adam(e, {{.weight = w.tensor(),
                                   .low = low,
                                   .grad_scale = clip.tensor(),
                                   .lr = 0.1f,
                                   .weight_decay = 0.5f,
                                   .step = step},
                                  {.beta1 = 0.9f, .beta2 = 0.95f, .eps = 1e-8f},
                                  first.tensor(),
                                  second.tensor(),
                                  0.25f});
        });
        std::vector<double> direction(mean.size());
        for (size_t i = 0; i < mean.size(); ++i) {
          const double g = 0.5 * factor.get(static_cast<int64_t>(i));
          mean[i] = 0.9f * mean[i] + (1 - static_cast<double>(0.9f)) * g;
          square[i] = 0.95f * square[i] + (1 - static_cast<double>(0.95f)) * g * g;
          const double m_hat = mean[i] / (1 - std::pow(static_cast<double>(0.9f), static_cast<double>(step)));
          const double v_hat = square[i] / (1 - std::pow(static_cast<double>(0.95f), static_cast<double>(step)));
          direction[i] = m_hat / (std::sqrt(v_hat) + static_cast<double>(1e-8f));
        }
        const std::vector<double> back = product(direction, p.dense, m, r, kWidth, true);
        for (size_t i = 0; i < weight.size(); ++i) {
          weight[i] = weight[i] * (1 - static_cast<double>(0.1f) * 0.5) - static_cast<double>(0.1f) * 0.25 * back[i];
        }
      }
      const double allowed = dtype == DType::f64 ? 1e-6 : 2e-4;  // α·lr is rounded to fp32 in both
      require_close(w, weight, allowed, allowed);
    }
  }
}

TEST_CASE("orthonormalize gives orthonormal rows, orthogonal to others, that span the same", "[projector]") {
  for (DType dtype : {DType::f32, DType::f64}) {
    const double allowed = dtype == DType::f64 ? 1e-12 : 1e-6;
    for (const auto& sizes : {std::array<int64_t, 3>{5, 31, 0}, {7, 31, 6}, {10, 20, 10}, {1, 1, 0}}) {
      const int64_t k = sizes[0], n = sizes[1], others = sizes[2];
      INFO(k << " of " << n << " beside " << others);
      HostTensor basis = HostTensor::random(dtype, {k, n}, 1), against(dtype, {std::max<int64_t>(others, 1), n});
      if (others > 0) against.assign(orthonormal_rows(others, n, 2));
      const std::vector<double> before = basis.values();
      run_op([&](Exec& e) { ops::orthonormalize(e, basis.tensor(), others > 0 ? against.tensor() : Tensor()); });
      const auto dot = [&](const std::vector<double>& a, int64_t i, const std::vector<double>& b, int64_t j) {
        double sum = 0;
        for (int64_t c = 0; c < n; ++c) sum += a[static_cast<size_t>(i * n + c)] * b[static_cast<size_t>(j * n + c)];
        return sum;
      };
      const std::vector<double> q = basis.values(), a = against.values();
      for (int64_t i = 0; i < k; ++i) {
        for (int64_t j = 0; j < k; ++j) CHECK(std::abs(dot(q, i, q, j) - (i == j)) < allowed);
        for (int64_t j = 0; j < others; ++j) CHECK(std::abs(dot(q, i, a, j)) < allowed);
        CHECK(dot(q, i, before, i) > 0);  // R's diagonal
        for (int64_t j = i + 1; j < k; ++j)
          CHECK(std::abs(dot(q, j, before, i)) < 30 * allowed);  // R is upper triangular
      }
    }
  }
}

TEST_CASE("leading_eigenvectors solve the eigenproblem, in descending order", "[projector]") {
  constexpr int64_t n = 17, k = 6;
  for (DType dtype : {DType::f32, DType::f64}) {
    HostTensor x = HostTensor::random(dtype, {40, n}, 1), gram(dtype, {n, n}), basis(dtype, {k, n}), values(dtype, {k});
    const std::vector<double> data = x.values();
    std::vector<double> g(n * n);
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        for (int64_t t = 0; t < 40; ++t) g[i * n + j] += data[t * n + i] * data[t * n + j];
      }
    }
    gram.assign(g);
    run_op([&](Exec& e) { ops::leading_eigenvectors(e, basis.tensor(), values.tensor(), gram.tensor()); });
    for (int64_t i = 0; i < k; ++i) {
      if (i > 0) CHECK(values.get(i) <= values.get(i - 1));
      for (int64_t row = 0; row < n; ++row) {
        double sum = 0;
        for (int64_t c = 0; c < n; ++c) sum += gram.get(row * n + c) * basis.get(i * n + c);
        // Eigenvalues are below 120; the vectors are rounded to the dtype.
        CHECK(std::abs(sum - values.get(i) * basis.get(i * n + row)) < (dtype == DType::f64 ? 1e-11 : 1e-4));
      }
    }
  }
}

TEST_CASE("sketches have the same bits for any number of threads", "[projector]") {
  for (const char* name : {"gaussian", "sign"}) {
    const auto random = name == std::string("sign") ? Projector::Random::sign : Projector::Random::gaussian;
    Projector p{.width = 500, .random_rank = 125, .random = random, .seed = 5, .layer = 3};
    HostTensor identity(DType::f32, {500, 500});
    for (int64_t i = 0; i < 500; ++i) identity.set(i * 500 + i, 1.0);
    require_same_for_any_threads([&] {
      // Identity in: each product has one summand, so that oneDNN's order of additions does not matter.
      HostTensor z(DType::f32, {500, 125});
      run_op([&](Exec& e) { ops::project(e, z.tensor(), identity.tensor(), p); });
      return z;
    });
  }
}

TEST_CASE("a projector that does not fit is refused by name", "[projector]") {
  Projector p{.width = 8, .random_rank = 4, .random = Projector::Random::sign};
  HostTensor x(DType::f32, {3, 8}), z(DType::f32, {3, 4}), narrow(DType::f32, {3, 5});
  require_error([&](Exec& e) { ops::project(e, narrow.tensor(), x.tensor(), p); }, {"project", "z", "[3, 4]"});
  require_error([&](Exec& e) { ops::project(e, z.tensor(), narrow.tensor(), p); }, {"project", "5 features", "8"});
  p.random_rank = 9;
  require_error([&](Exec& e) { ops::project(e, z.tensor(), x.tensor(), p); }, {"rank 0 + 9", "width of 8"});
  HostTensor rows(DType::f32, {3, 8}), others(DType::f32, {6, 8});
  require_error([&](Exec& e) { ops::orthonormalize(e, rows.tensor(), others.tensor()); }, {"3 + 6", "8 dimensions"});
}

TEST_CASE("an op that sketches what it writes leaves the bits of a sketch made afterwards", "[projector]") {
  for (const Types& types : kTypes) {
    for (int64_t rows : {1, 13}) {
      INFO(dtype_name(types.x) << " to " << dtype_name(types.z) << ", " << rows << " rows");
      ReferenceProjector p = make_projector(Projector::Random::sign, kWidth, 0, 7, types.basis);
      HostTensor x = HostTensor::random(types.x, {rows, kWidth}, 1, 1.0, 5);
      HostTensor y = HostTensor::random(types.x, {rows, kWidth}, 2), gain = HostTensor::random(types.x, {kWidth}, 3);
      HostTensor xhat(types.x, {rows, kWidth}), rstd(types.z == DType::f64 ? DType::f64 : DType::f32, {rows});
      using Op = std::function<void(Exec&, Tensor out, const SketchEpilogue&)>;
      const Op ops[] = {
          [&](Exec& e, Tensor out, const SketchEpilogue& s) {
            ops::rmsnorm_forward(e, out, xhat.tensor(), rstd.tensor(), x.tensor(), gain.tensor(), 1e-6f, s);
          },
          [&](Exec& e, Tensor out, const SketchEpilogue& s) {
            ops::layernorm_forward(e, out, {}, rstd.tensor(), x.tensor(), gain.tensor(), gain.tensor(), 1e-6f, s);
          },
          [&](Exec& e, Tensor out, const SketchEpilogue& s) { ops::swiglu_forward(e, out, x.tensor(), y.tensor(), s); },
          [&](Exec& e, Tensor out, const SketchEpilogue& s) { ops::gelu_forward(e, out, x.tensor(), s); }};
      for (const Op& op : ops) {
        HostTensor out(types.x, {rows, kWidth}, 2), z(types.z, {rows, 7}, 3), want = out, want_z = z;
        const double flops = run_op([&](Exec& e) { op(e, out.tensor(), {z.tensor(), &p.view}); });
        const double apart = run_op([&](Exec& e) {
          op(e, want.tensor(), {});
          ops::project(e, want_z.tensor(), want.tensor(), p.view);
        });
        CHECK(flops == apart);
        CHECK((out.same_bits(want) && z.same_bits(want_z) && z.gaps_intact()));
      }
      ReferenceProjector other = make_projector(Projector::Random::gaussian, kWidth, 0, 7, types.basis);
      HostTensor out(types.x, {rows, kWidth}), z(types.z, {rows, 7});
      CHECK_THROWS_WITH(run_op([&](Exec& e) {
                          ops[3](e, out.tensor(), {z.tensor(), &other.view});
                        }),
                        contains("only a sign projector"));
    }
  }
}

}  // namespace llmz::test
