#include "llmz/ops/optimizer.h"

#include "kernels/cpu/twins.h"
#include "kernels/cuda/twins.h"
#include "src/ops/dispatch.h"
#include "src/ops/update.h"

namespace llmz::ops {
namespace {

void check_scalar(Arguments& args, std::string_view name, const Tensor& t) {
  args.dtype(name, t, DType::f32);
  args.shape(name, t, {1});
}

/// A tile of the gradient is expanded and used up before the next.
void low_rank_adamw(Exec& exec, const Arguments& args, const AdamWArgs& a) {
  expanded_tiles(exec, a).for_each([&](int64_t first, const Tensor& tile) {
    AdamWArgs part = update_of_tile(a, first, tile);
    part.m = a.m.slice(0, first, tile.dim(0));
    part.v = a.v.slice(0, first, tile.dim(0));
    dispatch(
        exec, args, [&] { cpu::adamw(part); }, [&](Gpu& gpu) { cuda::adamw(gpu, part); });
  });
}

}  // namespace

void adamw(Exec& exec, const AdamWArgs& a) {
  Arguments args("adamw");
  check_update(args, a);
  check_constants(args, a);
  for (const auto& [name, t] : {std::pair{"m", a.m}, {"v", a.v}}) {
    args.floats(name, t, a.weight.shape);
    args.contiguous(name, t);
  }
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
