#include "kernels/cpu/twins.h"
#include "kernels/cuda/twins.h"
#include "llmz/ops/elementwise.h"
#include "llmz/ops/optimizer.h"
#include "src/ops/dispatch.h"
#include "src/ops/update.h"

namespace llmz::ops {
namespace {

void check_projected(Arguments& args, const ProjectedAdamArgs& a) {
  args.require(a.low.present(), "the low-rank gradient is absent");
  check_update(args, a);
  check_constants(args, a);
  args.require(!a.low.column_scale.present() && !a.low.row_term.present(),
               "a gradient with a column scale has no fixed subspace");
  for (const auto& [name, t] : {std::pair{"m", a.m}, {"v", a.v}}) {
    args.floats(name, t, a.low.factor.shape);
    args.contiguous(name, t);
  }
}

/// weight = keep·weight + factor·N·Pᵀ by the sketch's own expansion; a weight that is rounded at random through f32
/// tiles of rows.
void add_direction(Exec& exec, const ProjectedAdamArgs& a, const Tensor& direction, double factor) {
  const double keep = 1.0 - static_cast<double>(a.lr) * static_cast<double>(a.weight_decay);
  const auto decayed_and_moved = [&](const Sketching& sketching, const Tensor& weight, const Tensor& n) {
    if (a.weight_decay != 0) scale(exec, weight, keep);
    sketching.expand(weight, n, factor, /*accumulate=*/true);
  };
  const int64_t rows = a.weight.dim(0), width = a.weight.dim(1);
  const Sketching sketching(exec, *a.low.projector, direction.dtype, rows);
  if (a.weight.dtype != DType::bf16) {
    decayed_and_moved(sketching, a.weight, direction);
    if (a.rounding.shadow.present()) copy(exec, a.rounding.shadow, a.weight);
    return;
  }
  const Buffer buffer =
      exec.memory.take("projected_adam.tile", Category::workspace, {std::min(kTileRows, rows), width}, DType::f32);
  for (int64_t first = 0; first < rows; first += kTileRows) {
    const int64_t count = std::min(kTileRows, rows - first);
    const Tensor tile = buffer.tensor().slice(0, 0, count), weight = a.weight.slice(0, first, count);
    copy(exec, tile, weight);
    decayed_and_moved(sketching, tile, direction.slice(0, first, count));
    if (a.rounding.stochastic) {
      round_stochastically(exec, weight, tile, *a.rounding.stochastic,
                           a.rounding.first + static_cast<uint64_t>(first * width));
    } else {
      copy(exec, weight, tile);
    }
  }
}

/// Whether N·Pᵀ is multiplied in bf16 on the CPU: by Gaussian P, which is made in either type.
bool multiplies_direction_in_bf16(const Exec& exec, const ProjectedAdamArgs& a) {
  const Projector& p = *a.low.projector;
  return expands_in_bf16(exec, a) && p.random == Projector::Random::gaussian && p.principal_rank == 0;
}

}  // namespace

void projected_adam(Exec& exec, const ProjectedAdamArgs& a) {
  Arguments args("projected_adam");
  check_projected(args, a);
  const double factor = -static_cast<double>(a.lr) * static_cast<double>(a.alpha);
  // On a GPU a seed's projector goes straight from Philox through shared memory into the tensor cores.
  const bool fused = exec.on_gpu() && cuda::fuses_projected_adam(a);
  const bool in_bf16 = fused || multiplies_direction_in_bf16(exec, a);
  const DType dtype = in_bf16 ? DType::bf16 : args.is_double() ? DType::f64 : DType::f32;
  const Shape shape = fused ? cuda::padded_direction(a) : a.low.factor.shape;
  const Buffer direction = exec.memory.take("projected_adam.direction", Category::workspace, shape, dtype);
  dispatch(
      exec, args, [&] { cpu::adam_direction(a, direction.tensor()); },
      [&](Gpu& gpu) { cuda::adam_direction(gpu, a, direction.tensor()); });
  if (!fused) return add_direction(exec, a, direction.tensor(), factor);
  exec.flops += 2.0 * static_cast<double>(a.weight.numel()) * static_cast<double>(a.low.projector->rank());
  dispatch(
      exec, args, [] {}, [&](Gpu& gpu) { cuda::projected_update(gpu, a, direction.tensor(), factor); });
}

}  // namespace llmz::ops
