#include "kernels/cpu/decompose.h"

#include <Eigen/Eigenvalues>
#include <Eigen/QR>

#include "kernels/cpu/rows.h"

namespace llmz::cpu {
namespace {

using Matrix = Eigen::MatrixXd;
using Map = Eigen::Map<Matrix>;

/// Rows of a row-major [k,n] are the columns of Eigen's n×k.
Map columns(double* data, int64_t n, int64_t k) { return {data, n, k}; }

void check_finite(const Map& m, const char* op) {
  check(m.allFinite(), "{}: the matrix holds a NaN or an infinity", op);
}

}  // namespace

void orthonormalize(Tensor basis, Tensor against, Tensor work) {
  const int64_t k = basis.dim(0), n = basis.dim(1), others = against.present() ? against.dim(0) : 0;
  // One decomposition of both, A's rows first: the others come out orthogonal to them, dependent rows too.
  double* const rows = work.as<double>();
  Map q = columns(rows, n, others + k), result = columns(rows + (others + k) * n, n, k);
  if (others > 0) convert(q.data(), DType::f64, against.data, against.dtype, others * n);
  convert(q.data() + others * n, DType::f64, basis.data, basis.dtype, k * n);
  check_finite(q, "orthonormalize");
  Eigen::HouseholderQR<Eigen::Ref<Matrix>> qr(q);
  result.setZero();
  for (int64_t j = 0; j < k; ++j) result(others + j, j) = 1;
  result.applyOnTheLeft(qr.householderQ());
  for (int64_t j = 0; j < k; ++j) {
    if (q(others + j, others + j) < 0) result.col(j) = -result.col(j);  // R's diagonal
  }
  convert(basis.data, basis.dtype, result.data(), DType::f64, k * n);
}

void leading_eigenvectors(Tensor basis, Tensor values, Tensor gram, Tensor work) {
  const int64_t k = basis.dim(0), n = gram.dim(0);
  Map g = columns(work.as<double>(), n, n);
  convert(g.data(), DType::f64, gram.data, gram.dtype, n * n);
  check_finite(g, "leading_eigenvectors");
  const Eigen::SelfAdjointEigenSolver<Matrix> solver(g);
  check(solver.info() == Eigen::Success,
        "leading_eigenvectors: the decomposition of a matrix of {} rows did not converge", n);
  for (int64_t i = 0; i < k; ++i) {  // Eigen's order is ascending
    Eigen::VectorXd v = solver.eigenvectors().col(n - 1 - i);
    Eigen::Index largest = 0;
    v.cwiseAbs().maxCoeff(&largest);
    if (v(largest) < 0) v = -v;
    auto* const row = static_cast<std::byte*>(basis.data) + i * n * static_cast<int64_t>(dtype_bytes(basis.dtype));
    convert(row, basis.dtype, v.data(), DType::f64, n);
    const double value = solver.eigenvalues()(n - 1 - i);
    auto* const at = static_cast<std::byte*>(values.data) + i * static_cast<int64_t>(dtype_bytes(values.dtype));
    convert(at, values.dtype, &value, DType::f64, 1);
  }
}

}  // namespace llmz::cpu
