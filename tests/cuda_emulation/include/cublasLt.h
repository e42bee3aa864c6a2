#pragma once
#include "cuda_runtime_api.h"
struct cublasLtContext;
using cublasLtHandle_t = cublasLtContext*;
enum cublasStatus_t { CUBLAS_STATUS_SUCCESS = 0 };
cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle);
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle);
