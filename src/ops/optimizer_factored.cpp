#include <array>

#include "kernels/cpu/twins.h"
#include "kernels/cuda/twins.h"
#include "llmz/ops/elementwise.h"
#include "llmz/ops/optimizer.h"
#include "src/ops/dispatch.h"
#include "src/ops/update.h"

namespace llmz::ops {
namespace {

void check_factored(Arguments& args, const FactoredAdamWArgs& a) {
  args.rank("weight", a.weight, 2);
  args.require(a.weight.numel() > 0, "weight {} is empty", a.weight.shape.str());
  check_update(args, a);
  check_constants(args, a);
  const int64_t m = a.weight.dim(0), n = a.weight.dim(1);
  args.require(a.m.present() != a.m_codes.present(), "either m or m_codes is needed, not both");
  args.require(a.m_codes.present() == a.m_scales.present(), "m_codes and m_scales go together");
  if (a.m.present()) {
    args.statistic("m", a.m, a.weight.shape);
    args.contiguous("m", a.m);
  } else {
    args.dtype("m_codes", a.m_codes, DType::u8);
    args.shape("m_codes", a.m_codes, a.weight.shape);
    args.contiguous("m_codes", a.m_codes);
    args.dtype("m_scales", a.m_scales, DType::f32);
    args.shape("m_scales", a.m_scales, {m, (n + kMomentBlock - 1) / kMomentBlock});
    args.contiguous("m_scales", a.m_scales);
  }
  args.statistic("row", a.row, {m});
  args.statistic("column", a.column, {n});
  args.require(a.total_rows >= 0, "total_rows is {}, it cannot be negative", a.total_rows);
}

/// The moving average of the columns and the mean of the rows', from what the tiles left. Of a weight that is spread
/// over ranks each has its share of both, and one has the average so far too.
void make_moments(Exec& exec, const Arguments& args, const FactoredAdamWArgs& a, const Tensor& sums,
                  const Tensor& mean) {
  const bool spread = a.total_rows > 0 && exec.ranks != nullptr;
  const bool with_old = !spread || exec.ranks->rank() == 0;
  dispatch(
      exec, args, [&] { cpu::factored_moments(a, sums, mean, with_old); },
      [&](Gpu& gpu) { cuda::factored_moments(gpu, a, sums, mean, with_old); });
  if (spread) exec.ranks->all_reduce(std::array{a.column, mean});
}

}  // namespace

void factored_adamw(Exec& exec, const FactoredAdamWArgs& a) {
  Arguments args("factored_adamw");
  check_factored(args, a);
  // Squares by block of rows and column.
  constexpr const char* kName = "factored_adamw.sums";
  const Buffer sums =
      exec.on_gpu() ? take_workspace(exec, kName, cuda::factored_sums_workspace(a.weight))
                    : take_workspace(exec, kName, {cpu::factored_blocks(a.weight.dim(0)), a.weight.dim(1)}, DType::f64);
  const Buffer mean = exec.memory.take("factored_adamw.mean", Category::workspace, {1}, DType::f64);
  for_gradient_tiles(exec, a, [&](int64_t first, const Tensor& tile) {
    dispatch(
        exec, args, [&] { cpu::factored_statistics(a, first, tile, sums.tensor()); },
        [&](Gpu& gpu) { cuda::factored_statistics(gpu, a, first, tile, sums.tensor()); });
  });
  make_moments(exec, args, a, sums.tensor(), mean.tensor());
  for_gradient_tiles(exec, a, [&](int64_t first, const Tensor& tile) {
    dispatch(
        exec, args, [&] { cpu::factored_update(a, first, tile, mean.tensor()); },
        [&](Gpu& gpu) { cuda::factored_update(gpu, a, first, tile, mean.tensor()); });
  });
}

}  // namespace llmz::ops
