#include "kernels/cpu/twins.h"
#include "kernels/cuda/twins.h"
#include "llmz/ops/optimizer.h"
#include "src/ops/dispatch.h"
#include "src/ops/low_rank.h"

namespace llmz::ops {

void projected_adam(Exec& exec, const ProjectedAdamArgs& a) {
  Arguments args("projected_adam");
  args.floats("weight", a.weight);
  args.rank("weight", a.weight, 2);
  args.require(a.low.present(), "the low-rank gradient is absent");
  check_low_rank("projected_adam", a.low, a.weight.dim(0), a.weight.dim(1));
  args.require(!a.low.column_scale.present() && !a.low.row_term.present(),
               "a gradient with a column scale has no fixed subspace");
  for (const auto& [name, t] : {std::pair{"m", a.m}, {"v", a.v}}) {
    args.floats(name, t, a.low.factor.shape);
    args.contiguous(name, t);
  }
  args.contiguous("weight", a.weight);
  if (a.grad_scale.present()) {
    args.dtype("grad_scale", a.grad_scale, DType::f32);
    args.shape("grad_scale", a.grad_scale, {1});
  }
  args.require(a.step >= 1, "step is {}, steps count from 1", a.step);
  const DType dtype = args.is_double() ? DType::f64 : DType::f32;
  const Buffer direction = exec.memory.take("projected_adam.direction", Category::workspace, a.low.factor.shape, dtype);
  dispatch(
      exec, args, [&] { cpu::adam_direction(a, direction.tensor()); },
      [&](Gpu& gpu) { cuda::adam_direction(gpu, a, direction.tensor()); });
  Sketching(exec, *a.low.projector, dtype, a.weight.dim(0))
      .expand(a.weight, direction.tensor(), -static_cast<double>(a.lr) * static_cast<double>(a.alpha),
              /*accumulate=*/true);
}

}  // namespace llmz::ops
