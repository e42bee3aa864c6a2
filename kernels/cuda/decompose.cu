#include "kernels/cuda/device.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/limits.h"
#include "kernels/cuda/solver.h"
#include "kernels/cuda/twins.h"

// In f64 through cuSOLVER. Rows of a row-major [k,n] are the columns of its n × k matrix: what cuSOLVER decomposes.
// Refreshes are rare; each waits once for the GPU, to see whether it went well.

namespace llmz::cuda {
namespace {

unsigned blocks(int64_t elements) {
  const int64_t wanted = ceil_div(elements, kThreads);
  return static_cast<unsigned>(wanted < kMostBlocks ? wanted : kMostBlocks);
}

__device__ int64_t first_element() { return blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; }
__device__ int64_t element_step() { return static_cast<int64_t>(gridDim.x) * blockDim.x; }

/// Dense elements to f64. What is not finite becomes 0, so that the decomposition ends, and sets the flag.
__global__ void widen_kernel(double* out, Operand in, int64_t elements, int* not_finite) {
  for (int64_t i = first_element(); i < elements; i += element_step()) {
    const float x = in.at(i);
    const bool finite = fabsf(x) < INFINITY;
    out[i] = finite ? static_cast<double>(x) : 0.0;
    if (!finite) *not_finite = 1;  // whoever writes writes this
  }
}

void widen(Gpu& gpu, double* out, const Tensor& in, const SolverWork& work) {
  if (in.present()) {
    launch(gpu, "decompose.widen", widen_kernel, blocks(in.numel()), kThreads, 0, out, operand(in), in.numel(),
           work.flags + kFlagNotFinite);
  }
}

/// Signs of R's diagonal, rows `first` to `first + count` of the factors [n × ...].
__global__ void diagonal_signs_kernel(double* signs, const double* factors, int64_t first, int64_t count, int64_t n) {
  for (int64_t j = first_element(); j < count; j += element_step()) {
    signs[j] = factors[(first + j) * n + first + j] < 0 ? -1.0 : 1.0;
  }
}

/// out [count,n] = the rows times their signs.
__global__ void signed_rows_kernel(Operand out, const double* rows, const double* signs, int64_t count, int64_t n) {
  for (int64_t i = first_element(); i < count * n; i += element_step()) {
    out.put(i, static_cast<float>(rows[i] * signs[i / n]));
  }
}

/// Of two components the larger in magnitude, of equal ones the first.
struct Largest {
  double magnitude;
  int64_t index;
  __device__ void join(double other_magnitude, int64_t other_index) {
    if (other_magnitude > magnitude || (other_magnitude == magnitude && other_index < index)) {
      magnitude = other_magnitude;
      index = other_index;
    }
  }
};

/// Row r of basis [k,n] and values[r] = the pair n − 1 − r of the ascending ones, its largest component positive. One
/// block a row.
__global__ void leading_rows_kernel(Operand basis, Operand values, const double* vectors, const double* ascending,
                                    int64_t n) {
  __shared__ double magnitudes[kThreads];
  __shared__ int64_t indices[kThreads];
  const int64_t row = blockIdx.x;
  const double* v = vectors + (n - 1 - row) * n;
  Largest largest{-1.0, n};
  for (int64_t c = threadIdx.x; c < n; c += kThreads) largest.join(fabs(v[c]), c);
  magnitudes[threadIdx.x] = largest.magnitude, indices[threadIdx.x] = largest.index;
  for (unsigned half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) {
      largest.join(magnitudes[threadIdx.x + half], indices[threadIdx.x + half]);
      magnitudes[threadIdx.x] = largest.magnitude, indices[threadIdx.x] = largest.index;
    }
  }
  __syncthreads();
  const double sign = v[indices[0]] < 0 ? -1.0 : 1.0;
  for (int64_t c = threadIdx.x; c < n; c += kThreads) basis.put(row * n + c, static_cast<float>(sign * v[c]));
  if (threadIdx.x == 0) values.put(row, static_cast<float>(ascending[n - 1 - row]));
}

/// Takes parts of an op's workspace from its beginning.
class Parts {
 public:
  explicit Parts(const Tensor& work) : next_(work.as<double>()), left_(work.numel()) {}
  double* take(int64_t elements) {
    double* const part = next_;
    next_ += elements, left_ -= elements;
    return part;
  }
  /// Flags, cleared, and all that is left as cuSOLVER's.
  SolverWork rest(Gpu& gpu) {
    int* const flags = reinterpret_cast<int*>(take(kSolverFlags));
    gpu.fill(flags, 0, kFlagCount * sizeof(int));
    return {next_, left_, flags};
  }

 private:
  double* next_;
  int64_t left_;
};

}  // namespace

void orthonormalize(Gpu& gpu, Tensor basis, Tensor against, Tensor work) {
  const int64_t k = basis.dim(0), n = basis.dim(1), others = against.present() ? against.dim(0) : 0;
  const int64_t all = others + k;
  if (k == 0) return;
  // A's rows come first, then the basis': the last k columns of Q are what the basis adds to A, orthogonal to A and to
  // one another even where a row of the basis depends on others. That is the QR of (I − AᵀA)·basisᵀ: R's lower right
  // block is its R.
  Parts parts(work);
  double* const rows = parts.take(all * n);
  double* const tau = parts.take(all);
  double* const signs = parts.take(all);
  const SolverWork solver = parts.rest(gpu);
  widen(gpu, rows, against, solver);
  widen(gpu, rows + others * n, basis, solver);
  solver_qr(gpu, rows, n, all, tau, solver);
  launch(gpu, "orthonormalize.signs", diagonal_signs_kernel, blocks(k), kThreads, 0, signs, rows, others, k, n);
  solver_form_q(gpu, rows, n, all, tau, solver);
  solver_check(gpu, "orthonormalize", n, solver);
  launch(gpu, "orthonormalize.rows", signed_rows_kernel, blocks(k * n), kThreads, 0, operand(basis), rows + others * n,
         signs, k, n);
}

void leading_eigenvectors(Gpu& gpu, Tensor basis, Tensor values, Tensor gram, Tensor work) {
  const int64_t k = basis.dim(0), n = gram.dim(0);
  if (k == 0) return;
  Parts parts(work);
  double* const matrix = parts.take(n * n);
  double* const ascending = parts.take(n);
  const SolverWork solver = parts.rest(gpu);
  widen(gpu, matrix, gram, solver);
  solver_eigenvectors(gpu, matrix, n, ascending, solver);
  solver_check(gpu, "leading_eigenvectors", n, solver);
  launch(gpu, "leading_eigenvectors.rows", leading_rows_kernel, static_cast<unsigned>(k), kThreads, 0, operand(basis),
         operand(values), matrix, ascending, n);
}

}  // namespace llmz::cuda
