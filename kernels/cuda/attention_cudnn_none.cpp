#include "kernels/cuda/attention_cudnn.h"

// A build without cuDNN: llmz's own kernels compute all attention.

namespace llmz::cuda {

bool cudnn_attention_forward(Gpu&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                             const Tensor&) {
  return false;
}

bool cudnn_attention_backward(Gpu&, const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                              const Tensor&, const Tensor&, const Tensor&, const Tensor&, const Tensor&) {
  return false;
}

int cudnn_attention_shapes(Gpu&) { return 0; }

}  // namespace llmz::cuda
