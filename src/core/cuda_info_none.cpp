#include "llmz/core/system.h"

namespace llmz {

CudaInfo cuda_info() {
  CudaInfo info;
  info.reason =
      "llmz was built without CUDA; install NVIDIA's CUDA toolkit and configure again (LLMZ_CUDA=ON says what is "
      "missing)";
  return info;
}

}  // namespace llmz
