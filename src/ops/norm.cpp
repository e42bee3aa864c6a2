#include "llmz/ops/norm.h"

#include <algorithm>

#include "kernels/cpu/twins.h"
#include "kernels/cuda/twins.h"
#include "src/ops/dispatch.h"
#include "src/ops/sketching.h"

namespace llmz::ops {
namespace {

int64_t width_of(const Tensor& x) { return x.dim(x.rank() - 1); }
int64_t rows_of(const Tensor& x) { return x.numel() / std::max<int64_t>(1, width_of(x)); }

/// What both forward passes share: out, x̂ (optional) and x [T,H], rstd [T], gain [H].
void check_forward(Arguments& args, const Tensor& out, const Tensor& xhat, const Tensor& rstd, const Tensor& x,
                   const Tensor& gain, float eps) {
  args.floats("x", x);
  args.require(x.rank() >= 2, "x {} has no rows", x.shape.str());
  args.require(width_of(x) > 0, "x {} has empty rows", x.shape.str());
  args.floats("out", out, x.shape);
  if (xhat.present()) args.floats("xhat", xhat, x.shape);
  args.statistic("rstd", rstd, {rows_of(x)});
  args.floats("gain", gain, {width_of(x)});
  args.require(eps >= 0, "eps is {}, it cannot be negative", eps);
}

void check_backward(Arguments& args, const Tensor& dx, const Tensor& dgain, const Tensor& dy, const Tensor& xhat,
                    const Tensor& rstd, const Tensor& gain) {
  args.floats("dx", dx);
  args.require(dx.rank() >= 2, "dx {} has no rows", dx.shape.str());
  args.require(width_of(dx) > 0, "dx {} has empty rows", dx.shape.str());
  args.floats("dy", dy, dx.shape);
  args.floats("xhat", xhat, dx.shape);
  args.statistic("rstd", rstd, {rows_of(dx)});
  args.floats("gain", gain, {width_of(dx)});
  args.floats("dgain", dgain, {width_of(dx)});
}

/// Partial sums of `outputs` gradients [H].
Buffer take_backward_workspace(Exec& exec, const Arguments& args, const char* name, const Tensor& dx, int outputs) {
  if (exec.on_gpu()) return take_workspace(exec, name, cuda::norm_backward_workspace(dx, outputs));
  return take_workspace(exec, name, {cpu::norm_blocks(rows_of(dx)), outputs * width_of(dx)},
                        args.is_double() ? DType::f64 : DType::f32);
}

}  // namespace

void rmsnorm_forward(Exec& exec, Tensor out, Tensor xhat, Tensor rstd, Tensor x, Tensor gain, float eps,
                     const SketchEpilogue& epilogue) {
  Arguments args("rmsnorm_forward");
  check_forward(args, out, xhat, rstd, x, gain, eps);
  const SketchEpilogueInOp made(exec, args, epilogue, out);
  dispatch(
      exec, args,
      [&] {
        cpu::rmsnorm_forward(out, xhat, rstd, x, gain, eps);
        made.on_cpu(out);
      },
      [&](Gpu& gpu) { cuda::rmsnorm_forward(gpu, out, xhat, rstd, x, gain, eps, made.tables()); });
}

void layernorm_forward(Exec& exec, Tensor out, Tensor xhat, Tensor rstd, Tensor x, Tensor gain, Tensor bias, float eps,
                       const SketchEpilogue& epilogue) {
  Arguments args("layernorm_forward");
  check_forward(args, out, xhat, rstd, x, gain, eps);
  args.floats("bias", bias, {width_of(x)});
  const SketchEpilogueInOp made(exec, args, epilogue, out);
  dispatch(
      exec, args,
      [&] {
        cpu::layernorm_forward(out, xhat, rstd, x, gain, bias, eps);
        made.on_cpu(out);
      },
      [&](Gpu& gpu) { cuda::layernorm_forward(gpu, out, xhat, rstd, x, gain, bias, eps, made.tables()); });
}

void norm_apply_gain(Exec& exec, Tensor out, Tensor xhat, Tensor gain, Tensor bias) {
  Arguments args("norm_apply_gain");
  args.floats("xhat", xhat);
  args.rank("xhat", xhat, 2);
  args.floats("out", out, xhat.shape);
  args.floats("gain", gain, {xhat.dim(1)});
  if (bias.present()) args.floats("bias", bias, {xhat.dim(1)});
  dispatch(
      exec, args, [&] { cpu::norm_apply_gain(out, xhat, gain, bias); },
      [&](Gpu& gpu) { cuda::norm_apply_gain(gpu, out, xhat, gain, bias); });
}

void rmsnorm_backward(Exec& exec, Tensor dx, Tensor dgain, Tensor dy, Tensor xhat, Tensor rstd, Tensor gain,
                      Tensor row_sums) {
  Arguments args("rmsnorm_backward");
  check_backward(args, dx, dgain, dy, xhat, rstd, gain);
  if (row_sums.present()) args.statistic("row_sums", row_sums, {rows_of(dx)});
  const Buffer workspace = take_backward_workspace(exec, args, "rmsnorm_backward.workspace", dx, 1);
  dispatch(
      exec, args, [&] { cpu::rmsnorm_backward(dx, dgain, dy, xhat, rstd, gain, row_sums, workspace.tensor()); },
      [&](Gpu& gpu) { cuda::rmsnorm_backward(gpu, dx, dgain, dy, xhat, rstd, gain, row_sums, workspace.tensor()); });
}

void layernorm_backward(Exec& exec, Tensor dx, Tensor dgain, Tensor dbias, Tensor dy, Tensor xhat, Tensor rstd,
                        Tensor gain, Tensor row_sums) {
  Arguments args("layernorm_backward");
  check_backward(args, dx, dgain, dy, xhat, rstd, gain);
  if (row_sums.present()) args.statistic("row_sums", row_sums, {rows_of(dx)});
  args.floats("dbias", dbias, {width_of(dx)});
  const Buffer workspace = take_backward_workspace(exec, args, "layernorm_backward.workspace", dx, 2);
  dispatch(
      exec, args,
      [&] { cpu::layernorm_backward(dx, dgain, dbias, dy, xhat, rstd, gain, row_sums, workspace.tensor()); },
      [&](Gpu& gpu) {
        cuda::layernorm_backward(gpu, dx, dgain, dbias, dy, xhat, rstd, gain, row_sums, workspace.tensor());
      });
}

}  // namespace llmz::ops
