#include <Eigen/Core>
#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "cublasLt.h"
#include "cuda_runtime.h"
#include "llmz/core/dtype.h"

// The product of cuBLASLt, with the refusals that its documentation promises. An algorithm is here the promises under
// which it was chosen; a call that breaks one of them fails, where the library might read past an end.

struct cublasLtContext {};
struct cublasLtMatmulDescOpaque_t {
  cublasComputeType_t compute;
  bool transpose_a = false, transpose_b = false, adds_bias = false;
  const void* bias = nullptr;  // of D's type
};
struct cublasLtMatrixLayoutOpaque_t {
  cudaDataType type;
  int64_t rows, columns, ld;
  bool operator==(const cublasLtMatrixLayoutOpaque_t&) const = default;
};
struct cublasLtMatmulPreferenceOpaque_t {
  uint64_t workspace = 0;
  std::array<uint32_t, 4> alignments{256, 256, 256, 256};  // A, B, C, D
};

namespace {

using Desc = cublasLtMatmulDescOpaque_t;
using Layout = cublasLtMatrixLayoutOpaque_t;
using Matrix = Eigen::MatrixXf;

/// What an algorithm's opaque words hold here.
struct Promise {
  uint64_t workspace;
  std::array<uint32_t, 4> alignments;
  std::array<int64_t, 3> sizes;
  int64_t bias_alignment;  // 0: no bias
};
static_assert(sizeof(Promise) <= sizeof(cublasLtMatmulAlgo_t));

template <class T>
bool read(T& to, const void* value, size_t bytes) {
  if (bytes != sizeof(T)) return false;
  std::memcpy(&to, value, bytes);
  return true;
}
cublasStatus_t as_status(bool ok) { return ok ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE; }

std::array<int64_t, 3> sizes_of(const Desc& desc, const Layout& a, const Layout& d) {
  return {d.rows, d.columns, desc.transpose_a ? a.rows : a.columns};
}

int64_t bias_alignment(const Desc& desc) {
  if (!desc.adds_bias) return 0;
  return int64_t{1} << std::min(std::countr_zero(reinterpret_cast<uintptr_t>(desc.bias)), 8);
}

cublasStatus_t check(const Desc& desc, const Layout& a, const Layout& b, const Layout& c, const Layout& d) {
  const auto [m, n, k] = sizes_of(desc, a, d);
  const bool fits = (desc.transpose_a ? a.columns : a.rows) == m && (desc.transpose_b ? b.columns : b.rows) == k &&
                    (desc.transpose_b ? b.rows : b.columns) == n && c == d;
  if (!fits || m == 0 || n == 0 || k == 0) return CUBLAS_STATUS_INVALID_VALUE;
  const bool half = a.type == CUDA_R_16BF;
  if (a.type != b.type || (!half && d.type != CUDA_R_32F)) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (half && desc.compute != CUBLAS_COMPUTE_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  return CUBLAS_STATUS_SUCCESS;
}

int64_t at(const Layout& layout, int64_t row, int64_t column) { return row + column * layout.ld; }

/// To nearest with 10 bits behind the point.
float to_tf32(float x) { return std::bit_cast<float>((std::bit_cast<uint32_t>(x) + 0x1000u) & ~0x1fffu); }

Matrix load(const void* data, const Layout& layout, bool tf32) {
  Matrix m(layout.rows, layout.columns);
  for (int64_t j = 0; j < layout.columns; ++j) {
    for (int64_t i = 0; i < layout.rows; ++i) {
      const int64_t from = at(layout, i, j);
      m(i, j) = layout.type == CUDA_R_16BF ? static_cast<float>(static_cast<const llmz::bf16*>(data)[from])
                                           : static_cast<const float*>(data)[from];
      if (tf32) m(i, j) = to_tf32(m(i, j));
    }
  }
  return m;
}

void store(void* data, const Layout& layout, const Matrix& m) {
  for (int64_t j = 0; j < layout.columns; ++j) {
    for (int64_t i = 0; i < layout.rows; ++i) {
      if (layout.type == CUDA_R_16BF) {
        static_cast<llmz::bf16*>(data)[at(layout, i, j)] = llmz::bf16(m(i, j));
      } else {
        static_cast<float*>(data)[at(layout, i, j)] = m(i, j);
      }
    }
  }
}

}  // namespace

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) { return *handle = new cublasLtContext, CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) { return delete handle, CUBLAS_STATUS_SUCCESS; }
const char* cublasLtGetStatusName(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS: return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_INVALID_VALUE: return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_NOT_SUPPORTED: return "CUBLAS_STATUS_NOT_SUPPORTED";
  }
  return "unknown";
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* desc, cublasComputeType_t compute, cudaDataType scale) {
  if (scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  return *desc = new Desc{compute}, CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) { return delete desc, CUBLAS_STATUS_SUCCESS; }
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, size_t bytes) {
  int32_t number = 0;
  if (attribute == CUBLASLT_MATMUL_DESC_BIAS_POINTER) return as_status(read(desc->bias, value, bytes));
  if (!read(number, value, bytes)) return CUBLAS_STATUS_INVALID_VALUE;
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA: desc->transpose_a = number == CUBLAS_OP_T; break;
    case CUBLASLT_MATMUL_DESC_TRANSB: desc->transpose_b = number == CUBLAS_OP_T; break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      desc->adds_bias = number == CUBLASLT_EPILOGUE_BIAS;
      return as_status(desc->adds_bias || number == CUBLASLT_EPILOGUE_DEFAULT);
    default: return CUBLAS_STATUS_INVALID_VALUE;
  }
  return as_status(number == CUBLAS_OP_N || number == CUBLAS_OP_T);
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type, uint64_t rows,
                                          uint64_t columns, int64_t ld) {
  const auto r = static_cast<int64_t>(rows), c = static_cast<int64_t>(columns);
  if (ld < std::max<int64_t>(r, 1)) return CUBLAS_STATUS_INVALID_VALUE;
  return *layout = new Layout{type, r, c, ld}, CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  return delete layout, CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  return *preference = new cublasLtMatmulPreferenceOpaque_t, CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  return delete preference, CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void* value,
                                                    size_t bytes) {
  if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) {
    return as_status(read(preference->workspace, value, bytes));
  }
  uint32_t number = 0;
  const bool ok = read(number, value, bytes);
  if (attribute >= CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES) {
    preference->alignments[attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES] = number;
  }
  return as_status(ok);
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                              cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t preference,
                                              int requested, cublasLtMatmulHeuristicResult_t results[], int* found) {
  *found = 0;
  const cublasStatus_t status = check(*desc, *a, *b, *c, *d);
  if (status != CUBLAS_STATUS_SUCCESS || requested < 1) return status;
  const Promise promise{preference->workspace, preference->alignments, sizes_of(*desc, *a, *d), bias_alignment(*desc)};
  results[0] = {};
  std::memcpy(results[0].algo.data, &promise, sizeof(promise));
  results[0].workspaceSize = promise.workspace;
  results[0].state = CUBLAS_STATUS_SUCCESS;
  *found = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc, const void* alpha, const void* a,
                              cublasLtMatrixLayout_t a_layout, const void* b, cublasLtMatrixLayout_t b_layout,
                              const void* beta, const void* c, cublasLtMatrixLayout_t c_layout, void* d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t* algorithm, void* workspace,
                              size_t workspace_bytes, cudaStream_t stream) {
  const cublasStatus_t status = check(*desc, *a_layout, *b_layout, *c_layout, *d_layout);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  Promise promise{};
  std::memcpy(&promise, algorithm->data, sizeof(promise));
  bool kept = promise.sizes == sizes_of(*desc, *a_layout, *d_layout) && workspace_bytes >= promise.workspace &&
              workspace != nullptr && reinterpret_cast<uintptr_t>(workspace) % 16 == 0;
  const std::array<const void*, 4> pointers{a, b, c, d};
  for (size_t i = 0; i < pointers.size(); ++i) {
    kept = kept && pointers[i] != nullptr && reinterpret_cast<uintptr_t>(pointers[i]) % promise.alignments[i] == 0;
  }
  kept = kept && desc->adds_bias == (promise.bias_alignment > 0);
  if (desc->adds_bias) {
    kept = kept && desc->bias != nullptr && bias_alignment(*desc) >= promise.bias_alignment;
  }
  if (!kept) return CUBLAS_STATUS_INVALID_VALUE;

  const float scale = *static_cast<const float*>(alpha), keep = *static_cast<const float*>(beta);
  cuda_emulation::submit(stream, [=, op = *desc, al = *a_layout, bl = *b_layout, dl = *d_layout] {
    // It is the library's: whoever keeps something there learns so. Its ends are enough.
    const size_t end = std::min<size_t>(workspace_bytes, 4096);
    std::memset(workspace, 0xff, end);
    std::memset(static_cast<std::byte*>(workspace) + workspace_bytes - end, 0xff, end);
    const bool tf32 = op.compute == CUBLAS_COMPUTE_32F_FAST_TF32;
    Matrix left = load(a, al, tf32), right = load(b, bl, tf32);
    if (op.transpose_a) left = left.transpose().eval();
    if (op.transpose_b) right = right.transpose().eval();
    Matrix result = left * right;
    result *= scale;
    if (keep != 0) result += keep * load(c, dl, false);
    if (op.adds_bias) result.colwise() += load(op.bias, {dl.type, dl.rows, 1, dl.rows}, false).col(0);
    store(d, dl, result);
  });
  return CUBLAS_STATUS_SUCCESS;
}
