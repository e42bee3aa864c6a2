#include "llmz/ops/optimizer.h"

#include "kernels/cpu/twins.h"
#include "src/ops/dispatch.h"

namespace llmz::ops {
namespace {

void check_scalar(Arguments& args, std::string_view name, const Tensor& t) {
  args.dtype(name, t, DType::f32);
  args.shape(name, t, {1});
}

}  // namespace

void adamw(Exec& exec, const AdamWArgs& a) {
  Arguments args("adamw");
  args.floats("weight", a.weight);
  args.floats("grad", a.grad, a.weight.shape);
  args.floats("m", a.m, a.weight.shape);
  args.floats("v", a.v, a.weight.shape);
  args.contiguous("weight", a.weight);
  args.contiguous("grad", a.grad);
  args.contiguous("m", a.m);
  args.contiguous("v", a.v);
  if (a.grad_scale.present()) check_scalar(args, "grad_scale", a.grad_scale);
  args.require(a.step >= 1, "step is {}, steps count from 1", a.step);
  args.require(a.beta1 >= 0 && a.beta1 < 1 && a.beta2 >= 0 && a.beta2 < 1, "betas {} and {} must lie in [0, 1)",
               a.beta1, a.beta2);
  dispatch(exec, args, [&] { cpu::adamw(a); });
}

void sum_of_squares(Exec& exec, Tensor total, Tensor x) {
  Arguments args("sum_of_squares");
  args.floats("x", x);
  args.statistic("total", total, {1});
  const Buffer workspace =
      exec.memory.take("sum_of_squares.workspace", Category::workspace, {cpu::sum_pieces(x)}, DType::f64);
  dispatch(exec, args, [&] { cpu::sum_of_squares(total, x, workspace.tensor()); });
}

void clip_coefficient(Exec& exec, Tensor norm, Tensor scale, Tensor total, float max_norm) {
  Arguments args("clip_coefficient");
  check_scalar(args, "norm", norm);
  check_scalar(args, "scale", scale);
  args.statistic("total", total, {1});
  args.require(max_norm >= 0, "max_norm is {}, it cannot be negative", max_norm);
  dispatch(exec, args, [&] { cpu::clip_coefficient(norm, scale, total, max_norm); });
}

}  // namespace llmz::ops
