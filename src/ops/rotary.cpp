#include "kernels/cpu/twins.h"
#include "kernels/cuda/twins.h"
#include "llmz/ops/attention.h"
#include "src/ops/dispatch.h"

namespace llmz::ops {

void rotary(Exec& exec, Tensor x, int64_t position_offset, float base, bool inverse) {
  Arguments check("rotary");
  check.floats("x", x);
  check.rank("x", x, 4);
  check.require(x.dim(3) % 2 == 0, "x {} needs an even last dimension", x.shape.str());
  check.require(position_offset >= 0, "position_offset {} is negative", position_offset);
  check.require(base > 0, "base {} must be positive", base);
  dispatch(
      exec, check, [&] { cpu::rotary(x, position_offset, base, inverse); },
      [&](Gpu& gpu) { cuda::rotary(gpu, x, position_offset, base, inverse); });
}

}  // namespace llmz::ops
