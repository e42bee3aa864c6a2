#include "kernels/cuda/solver.h"

#include <cusolverDn.h>

#include <limits>

#include "llmz/core/error.h"

namespace llmz::cuda {
namespace {

void must(cusolverStatus_t status, const char* call, int64_t rows, int64_t columns) {
  check(status == CUSOLVER_STATUS_SUCCESS, "{} of cuSOLVER failed with status {} for a matrix of {} rows, {} columns",
        call, static_cast<int>(status), rows, columns);
}

int narrow(int64_t size) {
  check(size <= std::numeric_limits<int>::max(), "cuSOLVER takes no matrix of {} rows", size);
  return static_cast<int>(size);
}

/// What cuSOLVER is told of its scratch: all there is, as far as it counts.
int scratch_for(int needed, const char* call, int64_t rows, int64_t columns, const SolverWork& work) {
  check(needed <= work.elements,
        "{} of this version of cuSOLVER wants {} bytes of workspace for a matrix of {} rows, {} columns; the plan has "
        "{} (kernels/cuda/workspace.cpp)",
        call, 8 * int64_t{needed}, rows, columns, 8 * work.elements);
  return needed;
}

}  // namespace

void solver_qr(Gpu& gpu, double* a, int64_t rows, int64_t columns, double* tau, const SolverWork& work) {
  const int m = narrow(rows), n = narrow(columns);
  int needed = 0;
  must(cusolverDnDgeqrf_bufferSize(gpu.solver(), m, n, a, m, &needed), "cusolverDnDgeqrf_bufferSize", rows, columns);
  const int size = scratch_for(needed, "cusolverDnDgeqrf", rows, columns, work);
  must(cusolverDnDgeqrf(gpu.solver(), m, n, a, m, tau, work.scratch, size, work.flags + kFlagSolver),
       "cusolverDnDgeqrf", rows, columns);
}

void solver_form_q(Gpu& gpu, double* a, int64_t rows, int64_t columns, const double* tau, const SolverWork& work) {
  const int m = narrow(rows), n = narrow(columns);
  int needed = 0;
  must(cusolverDnDorgqr_bufferSize(gpu.solver(), m, n, n, a, m, tau, &needed), "cusolverDnDorgqr_bufferSize", rows,
       columns);
  const int size = scratch_for(needed, "cusolverDnDorgqr", rows, columns, work);
  must(cusolverDnDorgqr(gpu.solver(), m, n, n, a, m, tau, work.scratch, size, work.flags + kFlagForm),
       "cusolverDnDorgqr", rows, columns);
}

void solver_eigenvectors(Gpu& gpu, double* a, int64_t rows, double* values, const SolverWork& work) {
  const int n = narrow(rows);
  constexpr cusolverEigMode_t kVectors = CUSOLVER_EIG_MODE_VECTOR;
  constexpr cublasFillMode_t kLower = CUBLAS_FILL_MODE_LOWER;
  int needed = 0;
  must(cusolverDnDsyevd_bufferSize(gpu.solver(), kVectors, kLower, n, a, n, values, &needed),
       "cusolverDnDsyevd_bufferSize", rows, rows);
  const int size = scratch_for(needed, "cusolverDnDsyevd", rows, rows, work);
  must(cusolverDnDsyevd(gpu.solver(), kVectors, kLower, n, a, n, values, work.scratch, size, work.flags + kFlagSolver),
       "cusolverDnDsyevd", rows, rows);
}

void solver_check(Gpu& gpu, const char* op, int64_t rows, const SolverWork& work) {
  int flags[kFlagCount] = {};
  gpu.copy_to_host(flags, work.flags, sizeof(flags));
  check(flags[kFlagNotFinite] == 0, "{}: the matrix holds a NaN or an infinity", op);
  for (int i : {kFlagSolver, kFlagForm}) {
    check(flags[i] >= 0, "{}: cuSOLVER calls its argument {} wrong", op, -flags[i]);
    check(flags[i] == 0, "{}: the decomposition of a matrix of {} rows did not converge", op, rows);
  }
}

}  // namespace llmz::cuda
