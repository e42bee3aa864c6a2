#include "cuda/twins.h"
#include "errors.h"
#include "llmz/ops/decompose.h"

// Decompositions through cuSOLVER against Eigen's. Both work in f64: what the contract fixes agrees to the rounding of
// the results.

namespace llmz::test {
namespace {

/// Random orthonormal rows, by the CPU twin.
HostTensor orthonormal(DType type, int64_t k, int64_t n) {
  HostTensor rows = HostTensor::random(type, {k, n}, fresh_seed());
  run_op([&](Exec& e) { ops::orthonormalize(e, rows.tensor(), {}); });
  return rows;
}

double dot(const HostTensor& a, int64_t i, const HostTensor& b, int64_t j) {
  double sum = 0;
  for (int64_t c = 0, n = a.shape()[1]; c < n; ++c) sum += a.get(i * n + c) * b.get(j * n + c);
  return sum;
}

/// Rows are orthonormal and orthogonal to the others', to the rounding of their elements.
void check_orthonormal(const HostTensor& q, const HostTensor* others) {
  const double allowed = 8 * rounding(q.dtype());
  for (int64_t i = 0; i < q.shape()[0]; ++i) {
    for (int64_t j = 0; j <= i; ++j) CHECK(std::abs(dot(q, i, q, j) - (i == j)) < allowed);
    for (int64_t j = 0; others != nullptr && j < others->shape()[0]; ++j) {
      CHECK(std::abs(dot(q, i, *others, j)) < allowed);
    }
  }
}

/// Symmetric, with the eigenvalues n, n − 1, ..., 1, so that its eigenvectors are well determined.
HostTensor separated_gram(DType type, int64_t n) {
  const HostTensor q = orthonormal(DType::f64, n, n);
  HostTensor gram(type, {n, n});
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double sum = 0;
      for (int64_t l = 0; l < n; ++l) sum += static_cast<double>(n - l) * q.get(l * n + i) * q.get(l * n + j);
      gram.set(i * n + j, sum);
    }
  }
  return gram;
}

using Sizes = std::array<int64_t, 3>;  // k, n, others

}  // namespace

TEST_CASE("orthonormalize: CUDA twin agrees with the CPU's") {
  const Sizes sizes[] = {{1, 1, 0},  {1, 7, 0},    {3, 7, 4},     {7, 7, 0},     {5, 31, 0},
                         {7, 31, 6}, {10, 20, 10}, {64, 129, 65}, {65, 200, 32}, {3, 5461, 2}};
  for (DType type : {DType::f32, DType::bf16}) {
    for (const auto& [k, n, others] : sizes) {
      const unsigned seed = fresh_seed();
      INFO(dtype_name(type) << " " << k << " of " << n << " beside " << others << ", seed " << seed);
      HostTensor basis = HostTensor::random(type, {k, n}, seed), against;
      if (others > 0) against = orthonormal(DType::f32, others, n);
      const HostTensor before = basis;
      compare_twins({&basis, &against}, tolerance(type),
                    [](Exec& e, const Tensors& t) { ops::orthonormalize(e, t[0], t[1]); });
      check_orthonormal(basis, others > 0 ? &against : nullptr);
      for (int64_t i = 0; i < k; ++i) {
        CHECK(dot(basis, i, before, i) > 0);   // R's diagonal
        for (int64_t j = i + 1; j < k; ++j) {  // below it R is zero; a row's length is √n
          CHECK(std::abs(dot(basis, j, before, i)) < 8 * rounding(type) * std::sqrt(static_cast<double>(n)));
        }
      }
    }
  }
}

TEST_CASE("orthonormalize: CUDA twin makes orthonormal rows of dependent ones too") {
  for (int64_t others : {0, 6}) {
    HostTensor basis = HostTensor::random(DType::f32, {8, 40}, fresh_seed()), against;
    if (others > 0) against = orthonormal(DType::f32, others, 40);
    for (int64_t c = 0; c < 40; ++c) {
      basis.set(2 * 40 + c, 0.0);                                  // nothing
      basis.set(4 * 40 + c, basis.get(c));                         // an earlier row
      if (others > 0) basis.set(6 * 40 + c, against.get(40 + c));  // one of the others
    }
    const auto op = [](Exec& e, const Tensors& t) { ops::orthonormalize(e, t[0], t[1]); };
    run_on_gpu({&basis, &against}, op);
    check_orthonormal(basis, others > 0 ? &against : nullptr);
  }
}

TEST_CASE("leading_eigenvectors: CUDA twin agrees with the CPU's") {
  for (DType type : {DType::f32, DType::bf16}) {
    for (const auto& [k, n] :
         {std::pair<int64_t, int64_t>{1, 1}, {3, 3}, {2, 7}, {9, 64}, {65, 65}, {20, 129}, {200, 200}}) {
      INFO(dtype_name(type) << " " << k << " of " << n);
      HostTensor gram = separated_gram(type, n), basis(type, {k, n}), values(DType::f32, {k});
      compare_twins({&basis, &values, &gram}, tolerance(type),
                    [](Exec& e, const Tensors& t) { ops::leading_eigenvectors(e, t[0], t[1], t[2]); });
      for (int64_t i = 1; i < k; ++i) CHECK(values.get(i) < values.get(i - 1));
    }
  }
}

TEST_CASE("decompositions on the GPU say that a number is not finite") {
  for (double bad : {std::nan(""), -std::numeric_limits<double>::infinity()}) {
    HostTensor basis = HostTensor::random(DType::f32, {4, 9}, fresh_seed()), against;
    HostTensor gram = separated_gram(DType::f32, 9), values(DType::f32, {4});
    basis.set(17, bad);
    gram.set(40, bad);
    CHECK_ERROR(run_on_gpu({&basis, &against}, [](Exec& e, const Tensors& t) { ops::orthonormalize(e, t[0], t[1]); }),
                "orthonormalize: the matrix holds a NaN or an infinity");
    CHECK_ERROR(run_on_gpu({&basis, &values, &gram},
                           [](Exec& e, const Tensors& t) { ops::leading_eigenvectors(e, t[0], t[1], t[2]); }),
                "leading_eigenvectors: the matrix holds a NaN or an infinity");
  }
}

}  // namespace llmz::test
