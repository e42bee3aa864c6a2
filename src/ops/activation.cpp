#include "llmz/ops/activation.h"

#include "kernels/cpu/twins.h"
#include "kernels/cuda/twins.h"
#include "src/ops/dispatch.h"
#include "src/ops/sketching.h"

namespace llmz::ops {
namespace {

void check_row_sums(Arguments& args, const Tensor& row_sums, const Tensor& x) {
  if (!row_sums.present()) return;
  args.rank("x", x, 2);
  args.statistic("row_sums", row_sums, {x.dim(0)});
}

}  // namespace

void swiglu_forward(Exec& exec, Tensor out, Tensor gate, Tensor up, const SketchEpilogue& epilogue) {
  Arguments args("swiglu_forward");
  args.floats("gate", gate);
  args.floats("up", up, gate.shape);
  args.floats("out", out, gate.shape);
  const SketchEpilogueInOp made(exec, args, epilogue, out);
  dispatch(
      exec, args,
      [&] {
        cpu::swiglu_forward(out, gate, up);
        made.on_cpu(out);
      },
      [&](Gpu& gpu) { cuda::swiglu_forward(gpu, out, gate, up, made.tables()); });
}

void swiglu_backward(Exec& exec, Tensor dgate, Tensor dup, Tensor dout, Tensor gate, Tensor up, Tensor row_sums) {
  Arguments args("swiglu_backward");
  args.floats("gate", gate);
  args.floats("up", up, gate.shape);
  args.floats("dout", dout, gate.shape);
  args.floats("dgate", dgate, gate.shape);
  args.floats("dup", dup, gate.shape);
  check_row_sums(args, row_sums, gate);
  dispatch(
      exec, args, [&] { cpu::swiglu_backward(dgate, dup, dout, gate, up, row_sums); },
      [&](Gpu& gpu) { cuda::swiglu_backward(gpu, dgate, dup, dout, gate, up, row_sums); });
}

void gelu_forward(Exec& exec, Tensor out, Tensor x, const SketchEpilogue& epilogue) {
  Arguments args("gelu_forward");
  args.floats("x", x);
  args.floats("out", out, x.shape);
  const SketchEpilogueInOp made(exec, args, epilogue, out);
  dispatch(
      exec, args,
      [&] {
        cpu::gelu_forward(out, x);
        made.on_cpu(out);
      },
      [&](Gpu& gpu) { cuda::gelu_forward(gpu, out, x, made.tables()); });
}

void gelu_backward(Exec& exec, Tensor dx, Tensor dout, Tensor x, Tensor row_sums) {
  Arguments args("gelu_backward");
  args.floats("x", x);
  args.floats("dout", dout, x.shape);
  args.floats("dx", dx, x.shape);
  check_row_sums(args, row_sums, x);
  dispatch(
      exec, args, [&] { cpu::gelu_backward(dx, dout, x, row_sums); },
      [&](Gpu& gpu) { cuda::gelu_backward(gpu, dx, dout, x, row_sums); });
}

}  // namespace llmz::ops
