#include "kernels/cuda/blas.h"

#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <bit>
#include <map>
#include <memory>
#include <type_traits>

#include "kernels/cuda/limits.h"

// cuBLASLt thinks in columns: a row-major [rows, columns] tensor is its columns × rows matrix, and C = op(A)·op(B) by
// rows is Cᵀ = op(B)ᵀ·op(A)ᵀ by columns. So its first factor is our B, and both keep the transposition that was asked.
// Our bias, one number a column, is one a row there: what its epilogue adds.

namespace llmz::cuda {
namespace {

constexpr uint32_t kMostAlignment = 256;  // what cuBLASLt supposes by itself

cudaDataType blas_type(DType t) { return t == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F; }

/// Between rows; that of a single row may be anything, and cuBLASLt wants it to hold the row.
int64_t pitch(const Tensor& t) { return std::max(t.stride(0), t.dim(1)); }

uint32_t alignment(const Tensor& t) {
  const auto address = reinterpret_cast<uintptr_t>(t.data);
  return address == 0 ? kMostAlignment
                      : std::min(kMostAlignment, uint32_t{1} << std::min(std::countr_zero(address), 8));
}

std::string describe(const MatmulArgs& args) {
  const auto one = [](const Tensor& t, bool transposed) {
    return fmt::format("{} {}{} (pitch {}, at {} bytes)", dtype_name(t.dtype), t.shape.str(), transposed ? "ᵀ" : "",
                       t.stride(0), alignment(t));
  };
  return fmt::format("{} = {} · {}{}", one(args.c, false), one(args.a, args.transpose_a), one(args.b, args.transpose_b),
                     args.bias.present() ? " + a bias" : "");
}

void must(cublasStatus_t status, const char* call, const MatmulArgs& args) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  fail("matmul: {} of cuBLASLt failed with {} for {}", call, cublasLtGetStatusName(status), describe(args));
}

/// All that the choice of an algorithm depends on. `accumulate` and `alpha` do not belong to it.
using Key = std::array<int64_t, 15>;

Key key_of(const MatmulArgs& args, bool tf32) {
  const auto& [c, a, b, transpose_a, transpose_b, accumulate, alpha, bias] = args;
  return {c.dim(0),
          c.dim(1),
          a.dim(transpose_a ? 0 : 1),
          pitch(c),
          pitch(a),
          pitch(b),
          transpose_a,
          transpose_b,
          tf32,
          alignment(c),
          alignment(a),
          alignment(b),
          bias.present() ? alignment(bias) : 0,
          static_cast<int64_t>(c.dtype),
          static_cast<int64_t>(a.dtype)};
}

template <auto destroy>
struct Destroyer {
  template <class T>
  void operator()(T* p) const {
    destroy(p);
  }
};
template <class Handle, auto destroy>
using Owned = std::unique_ptr<std::remove_pointer_t<Handle>, Destroyer<destroy>>;
using Operation = Owned<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using Layout = Owned<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Preference = Owned<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

/// The bias' address belongs to the operation; the choice of an algorithm looks at its alignment.
void set_bias(const Operation& operation, const MatmulArgs& args) {
  const void* const address = args.bias.data;
  must(cublasLtMatmulDescSetAttribute(operation.get(), CUBLASLT_MATMUL_DESC_BIAS_POINTER, &address, sizeof(address)),
       "cublasLtMatmulDescSetAttribute", args);
}

Operation operation(const MatmulArgs& args, bool tf32) {
  cublasLtMatmulDesc_t raw = nullptr;
  must(cublasLtMatmulDescCreate(&raw, tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F),
       "cublasLtMatmulDescCreate", args);
  Operation result(raw);
  const auto set = [&](cublasLtMatmulDescAttributes_t which, auto value) {
    must(cublasLtMatmulDescSetAttribute(raw, which, &value, sizeof(value)), "cublasLtMatmulDescSetAttribute", args);
  };
  set(CUBLASLT_MATMUL_DESC_TRANSA, static_cast<int32_t>(args.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N));
  set(CUBLASLT_MATMUL_DESC_TRANSB, static_cast<int32_t>(args.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N));
  if (args.bias.present()) {
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, static_cast<uint32_t>(CUBLASLT_EPILOGUE_BIAS));
    set_bias(result, args);
  }
  return result;
}

Layout layout(const Tensor& t, const MatmulArgs& args) {
  cublasLtMatrixLayout_t raw = nullptr;
  must(cublasLtMatrixLayoutCreate(&raw, blas_type(t.dtype), static_cast<uint64_t>(t.dim(1)),
                                  static_cast<uint64_t>(t.dim(0)), pitch(t)),
       "cublasLtMatrixLayoutCreate", args);
  return Layout(raw);
}

Preference preference(const MatmulArgs& args) {
  cublasLtMatmulPreference_t raw = nullptr;
  must(cublasLtMatmulPreferenceCreate(&raw), "cublasLtMatmulPreferenceCreate", args);
  Preference result(raw);
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t which, auto value) {
    must(cublasLtMatmulPreferenceSetAttribute(raw, which, &value, sizeof(value)),
         "cublasLtMatmulPreferenceSetAttribute", args);
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(kBlasWorkspaceBytes));
  // Parts of a sum are put together in f32, never in C's bf16.
  prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment(args.b));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment(args.a));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment(args.c));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment(args.c));
  return result;
}

/// A shape's descriptions and algorithm.
struct Choice {
  Operation operation;
  Layout c, a, b;
  cublasLtMatmulAlgo_t algorithm;
};

using Choices = std::map<Key, Choice>;

Choice choose(cublasLtHandle_t handle, const MatmulArgs& args, bool tf32) {
  Choice choice{operation(args, tf32), layout(args.c, args), layout(args.a, args), layout(args.b, args), {}};
  cublasLtMatmulHeuristicResult_t result = {};
  int found = 0;
  must(cublasLtMatmulAlgoGetHeuristic(handle, choice.operation.get(), choice.b.get(), choice.a.get(), choice.c.get(),
                                      choice.c.get(), preference(args).get(), 1, &result, &found),
       "the choice of an algorithm", args);
  check(found > 0, "matmul: cuBLASLt has no algorithm for {}", describe(args));
  must(result.state, "the chosen algorithm", args);
  choice.algorithm = result.algo;
  return choice;
}

}  // namespace

void blas_matmul(Gpu& gpu, const MatmulArgs& args, void* workspace) {
  if (gpu.matmul_choices() == nullptr) gpu.matmul_choices() = std::make_shared<Choices>();
  auto& choices = *static_cast<Choices*>(gpu.matmul_choices().get());
  const bool tf32 = gpu.tf32() && args.a.dtype == DType::f32;
  const Key key = key_of(args, tf32);
  auto at = choices.find(key);
  if (at == choices.end()) at = choices.emplace(key, choose(gpu.blas(), args, tf32)).first;
  const Choice& choice = at->second;
  if (args.bias.present()) set_bias(choice.operation, args);
  const float alpha = static_cast<float>(args.alpha), beta = args.accumulate ? 1.0f : 0.0f;
  must(cublasLtMatmul(gpu.blas(), choice.operation.get(), &alpha, args.b.data, choice.b.get(), args.a.data,
                      choice.a.get(), &beta, args.c.data, choice.c.get(), args.c.data, choice.c.get(),
                      &choice.algorithm, workspace, static_cast<size_t>(kBlasWorkspaceBytes), gpu.stream()),
       "cublasLtMatmul", args);
}

}  // namespace llmz::cuda
