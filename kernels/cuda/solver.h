#pragma once

#include <cstdint>

#include "llmz/core/gpu.h"

namespace llmz::cuda {

/// What a decomposition works with beside its matrix.
struct SolverWork {
  double* scratch = nullptr;  ///< cuSOLVER's own
  int64_t elements = 0;       ///< of scratch
  int* flags = nullptr;       ///< kSolverFlag..., zero at first
};
// Which flag says what.
constexpr int kFlagNotFinite = 0;  ///< the input held a NaN or an infinity
constexpr int kFlagSolver = 1;     ///< cuSOLVER's report of the factorisation
constexpr int kFlagForm = 2;       ///< and of what was made of the factors
constexpr int kFlagCount = 3;

// Matrices are stored by columns without gaps. All throw Error where cuSOLVER refuses, or would need more scratch than
// was planned. The results do not vary from run to run: cuSOLVER is deterministic unless asked not to be.

/// a [rows × columns] = Q·R: R on and above the diagonal, Q's reflectors below it and in tau [columns].
void solver_qr(Gpu& gpu, double* a, int64_t rows, int64_t columns, double* tau, const SolverWork& work);
/// Those factors → Q's leading columns, in place.
void solver_form_q(Gpu& gpu, double* a, int64_t rows, int64_t columns, const double* tau, const SolverWork& work);
/// Symmetric a [n × n], its lower triangle read → its eigenvectors as columns, values [n] ascending.
void solver_eigenvectors(Gpu& gpu, double* a, int64_t n, double* values, const SolverWork& work);

/// Waits for the GPU and throws Error if a flag is set. `op` begins the message.
void solver_check(Gpu& gpu, const char* op, int64_t rows, const SolverWork& work);

}  // namespace llmz::cuda
