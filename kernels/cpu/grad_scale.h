#pragma once

#include "kernels/adam_scalars.h"
#include "llmz/core/tensor.h"

namespace llmz::cpu {

/// A step's scalars with the gradient's scale, which is in memory.
template <class Real, class Args>
AdamScalars<Real> adam_scalars(const Args& args) {
  AdamScalars<Real> scalars(args);
  if (args.grad_scale.present()) scalars.grad_scale = static_cast<Real>(*args.grad_scale.template as<float>());
  return scalars;
}

}  // namespace llmz::cpu
