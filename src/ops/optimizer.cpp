#include "llmz/ops/optimizer.h"

#include "kernels/cpu/twins.h"
#include "kernels/cuda/twins.h"
#include "src/ops/dispatch.h"
#include "src/ops/low_rank.h"

namespace llmz::ops {
namespace {

void check_scalar(Arguments& args, std::string_view name, const Tensor& t) {
  args.dtype(name, t, DType::f32);
  args.shape(name, t, {1});
}

/// A tile of the gradient is expanded and used up before the next.
void low_rank_adamw(Exec& exec, const Arguments& args, const AdamWArgs& a) {
  args.require(a.weight.rank() == 2, "a low-rank gradient is one of a matrix, not of {}", a.weight.shape.str());
  check_low_rank("adamw", a.low, a.weight.dim(0), a.weight.dim(1));
  ExpandedTiles(exec, a.low).for_each([&](int64_t first, const Tensor& tile) {
    const auto rows_of = [&](const Tensor& t) { return t.slice(0, first, tile.dim(0)); };
    AdamWArgs part = a;
    part.weight = rows_of(a.weight);
    part.m = rows_of(a.m);
    part.v = rows_of(a.v);
    part.grad = tile;
    part.low = {};
    if (a.rounding.shadow.present()) part.rounding.shadow = rows_of(a.rounding.shadow);
    part.rounding.first += static_cast<uint64_t>(first * a.weight.dim(1));
    dispatch(
        exec, args, [&] { cpu::adamw(part); }, [&](Gpu& gpu) { cuda::adamw(gpu, part); });
  });
}

}  // namespace

void adamw(Exec& exec, const AdamWArgs& a) {
  Arguments args("adamw");
  args.floats("weight", a.weight);
  args.require(a.grad.present() != a.low.present(), "one of grad and low must be present");
  if (a.grad.present()) {
    args.floats("grad", a.grad, a.weight.shape);
    args.contiguous("grad", a.grad);
  }
  args.floats("m", a.m, a.weight.shape);
  args.floats("v", a.v, a.weight.shape);
  args.contiguous("weight", a.weight);
  args.contiguous("m", a.m);
  args.contiguous("v", a.v);
  if (a.grad_scale.present()) check_scalar(args, "grad_scale", a.grad_scale);
  args.require(a.step >= 1, "step is {}, steps count from 1", a.step);
  args.require(a.beta1 >= 0 && a.beta1 < 1 && a.beta2 >= 0 && a.beta2 < 1, "betas {} and {} must lie in [0, 1)",
               a.beta1, a.beta2);
  check_rounding(args, a.weight, a.rounding);
  if (a.low.present()) return low_rank_adamw(exec, args, a);
  dispatch(
      exec, args, [&] { cpu::adamw(a); }, [&](Gpu& gpu) { cuda::adamw(gpu, a); });
}

void sum_of_squares(Exec& exec, Tensor total, Tensor x) {
  Arguments args("sum_of_squares");
  args.floats("x", x);
  args.statistic("total", total, {1});
  constexpr const char* kName = "sum_of_squares.workspace";
  const Buffer workspace = exec.on_gpu() ? take_workspace(exec, kName, cuda::sum_of_squares_workspace(x))
                                         : take_workspace(exec, kName, {cpu::sum_pieces(x)}, DType::f64);
  dispatch(
      exec, args, [&] { cpu::sum_of_squares(total, x, workspace.tensor()); },
      [&](Gpu& gpu) { cuda::sum_of_squares(gpu, total, x, workspace.tensor()); });
}

void clip_coefficient(Exec& exec, Tensor norm, Tensor scale, Tensor total, float max_norm) {
  Arguments args("clip_coefficient");
  check_scalar(args, "norm", norm);
  check_scalar(args, "scale", scale);
  args.statistic("total", total, {1});
  args.require(max_norm >= 0, "max_norm is {}, it cannot be negative", max_norm);
  dispatch(
      exec, args, [&] { cpu::clip_coefficient(norm, scale, total, max_norm); },
      [&](Gpu& gpu) { cuda::clip_coefficient(gpu, norm, scale, total, max_norm); });
}

}  // namespace llmz::ops
