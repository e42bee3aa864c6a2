#include "llmz/ops/loss.h"

#include "kernels/cpu/twins.h"
#include "kernels/cuda/twins.h"
#include "src/ops/dispatch.h"

namespace llmz::ops {

void softmax_cross_entropy(Exec& exec, Tensor losses, Tensor logits, Tensor targets, bool write_gradient,
                           float grad_scale) {
  Arguments check("softmax_cross_entropy");
  check.floats("logits", logits);
  check.rank("logits", logits, 2);
  check.statistic("losses", losses, {logits.dim(0)});
  check.dtype("targets", targets, DType::i32);
  check.shape("targets", targets, {logits.dim(0)});
  dispatch(
      exec, check, [&] { cpu::softmax_cross_entropy(losses, logits, targets, write_gradient, grad_scale); },
      [&](Gpu& gpu) { cuda::softmax_cross_entropy(gpu, losses, logits, targets, write_gradient, grad_scale); });
}

}  // namespace llmz::ops
