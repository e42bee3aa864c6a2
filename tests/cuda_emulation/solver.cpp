#include <Eigen/Eigenvalues>
#include <Eigen/QR>
#include <algorithm>
#include <limits>

#include "cuda_runtime.h"
#include "cusolverDn.h"

// Eigen's Householder QR keeps its factors as LAPACK does: R, and below it reflectors I − tau·v·vᵀ with a leading 1
// that is not stored.

struct cusolverDnContext {
  cudaStream_t stream = nullptr;
};

namespace {

using Matrix = Eigen::MatrixXd;
using Map = Eigen::Map<Matrix, 0, Eigen::OuterStride<>>;

constexpr int kPanel = 32;

/// Scratch is the library's: whoever keeps something there learns so.
void spoil(double* work, int lwork) { std::fill(work, work + lwork, std::numeric_limits<double>::quiet_NaN()); }

bool matrix_ok(const void* a, int m, int n, int lda) {
  return a != nullptr && m >= 0 && n >= 0 && lda >= std::max(m, 1);
}

}  // namespace

cusolverStatus_t cusolverDnCreate(cusolverDnHandle_t* handle) {
  return *handle = new cusolverDnContext, CUSOLVER_STATUS_SUCCESS;
}
cusolverStatus_t cusolverDnDestroy(cusolverDnHandle_t handle) { return delete handle, CUSOLVER_STATUS_SUCCESS; }
cusolverStatus_t cusolverDnSetStream(cusolverDnHandle_t handle, cudaStream_t stream) {
  return handle->stream = stream, CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnDgeqrf_bufferSize(cusolverDnHandle_t, int m, int n, double* a, int lda, int* lwork) {
  if (!matrix_ok(a, m, n, lda)) return CUSOLVER_STATUS_INVALID_VALUE;
  return *lwork = kPanel * (m + n), CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnDgeqrf(cusolverDnHandle_t handle, int m, int n, double* a, int lda, double* tau,
                                  double* work, int lwork, int* info) {
  if (!matrix_ok(a, m, n, lda) || lwork < kPanel * (m + n)) return CUSOLVER_STATUS_INVALID_VALUE;
  cuda_emulation::submit(handle->stream, [=] {
    spoil(work, lwork);
    Map factors(a, m, n, Eigen::OuterStride<>(lda));
    Eigen::HouseholderQR<Eigen::Ref<Matrix>> qr(factors);
    std::copy_n(qr.hCoeffs().data(), std::min(m, n), tau);
    *info = 0;
  });
  return CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnDorgqr_bufferSize(cusolverDnHandle_t, int m, int n, int k, const double* a, int lda,
                                             const double*, int* lwork) {
  if (!matrix_ok(a, m, n, lda) || n > m || k > n) return CUSOLVER_STATUS_INVALID_VALUE;
  return *lwork = kPanel * (m + n), CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnDorgqr(cusolverDnHandle_t handle, int m, int n, int k, double* a, int lda, const double* tau,
                                  double* work, int lwork, int* info) {
  if (!matrix_ok(a, m, n, lda) || n > m || k > n || lwork < kPanel * (m + n)) return CUSOLVER_STATUS_INVALID_VALUE;
  cuda_emulation::submit(handle->stream, [=] {
    spoil(work, lwork);
    Map q(a, m, n, Eigen::OuterStride<>(lda));
    const Matrix reflectors = q.leftCols(k);
    const Eigen::VectorXd factors = Eigen::Map<const Eigen::VectorXd>(tau, k);
    q.setIdentity();
    q.applyOnTheLeft(Eigen::householderSequence(reflectors, factors));
    *info = 0;
  });
  return CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnDsyevd_bufferSize(cusolverDnHandle_t, cusolverEigMode_t, cublasFillMode_t, int n,
                                             const double* a, int lda, const double*, int* lwork) {
  if (!matrix_ok(a, n, n, lda)) return CUSOLVER_STATUS_INVALID_VALUE;
  return *lwork = 2 * n * n + 6 * n + 1, CUSOLVER_STATUS_SUCCESS;
}

cusolverStatus_t cusolverDnDsyevd(cusolverDnHandle_t handle, cusolverEigMode_t, cublasFillMode_t, int n, double* a,
                                  int lda, double* values, double* work, int lwork, int* info) {
  if (!matrix_ok(a, n, n, lda) || lwork < 2 * n * n + 6 * n + 1) return CUSOLVER_STATUS_INVALID_VALUE;
  cuda_emulation::submit(handle->stream, [=] {
    spoil(work, lwork);
    Map matrix(a, n, n, Eigen::OuterStride<>(lda));
    const Eigen::SelfAdjointEigenSolver<Matrix> solver{Matrix(matrix)};  // reads the lower triangle
    matrix = solver.eigenvectors();
    std::copy_n(solver.eigenvalues().data(), n, values);
    *info = solver.info() == Eigen::Success ? 0 : 1;
  });
  return CUSOLVER_STATUS_SUCCESS;
}
