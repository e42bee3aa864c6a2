#include "llmz/ops/elementwise.h"

#include "kernels/cpu/twins.h"
#include "kernels/cuda/twins.h"
#include "src/ops/dispatch.h"

namespace llmz::ops {

void add(Exec& exec, Tensor y, Tensor x) {
  Arguments args("add");
  args.floats("y", y);
  args.floats("x", x, y.shape);
  dispatch(
      exec, args, [&] { cpu::add(y, x); }, [&](Gpu& gpu) { cuda::add(gpu, y, x); });
}

void row_dot(Exec& exec, Tensor sums, Tensor a, Tensor b, float alpha, bool accumulate) {
  Arguments args("row_dot");
  args.floats("a", a);
  args.rank("a", a, 2);
  args.floats("b", b, b.rank() == 1 ? Shape{a.dim(1)} : a.shape);
  args.statistic("sums", sums, {a.dim(0)});
  dispatch(
      exec, args, [&] { cpu::row_dot(sums, a, b, alpha, accumulate); },
      [&](Gpu& gpu) { cuda::row_dot(gpu, sums, a, b, alpha, accumulate); });
}

void set_identity(Exec& exec, Tensor x) {
  Arguments args("set_identity");
  args.floats("x", x);
  args.rank("x", x, 2);
  args.require(x.dim(0) == x.dim(1), "x {} is not square", x.shape.str());
  dispatch(
      exec, args, [&] { cpu::set_identity(x); }, [&](Gpu& gpu) { cuda::set_identity(gpu, x); });
}

void row_means(Exec& exec, Tensor x) {
  Arguments args("row_means");
  args.floats("x", x);
  args.rank("x", x, 2);
  dispatch(
      exec, args, [&] { cpu::row_means(x); }, [&](Gpu& gpu) { cuda::row_means(gpu, x); });
}

void difference_norms(Exec& exec, Tensor norms, Tensor a, Tensor b) {
  Arguments args("difference_norms");
  args.floats("a", a);
  args.floats("b", b, a.shape);
  args.require(norms.dtype == DType::f64, "norms hold {}; f64 is needed", dtype_name(norms.dtype));
  args.shape("norms", norms, {2});
  constexpr const char* kName = "difference_norms.workspace";
  const Buffer workspace = exec.on_gpu() ? take_workspace(exec, kName, cuda::difference_norms_workspace(a))
                                         : take_workspace(exec, kName, {2 * cpu::row_blocks(a)}, DType::f64);
  dispatch(
      exec, args, [&] { cpu::difference_norms(norms, a, b, workspace.tensor()); },
      [&](Gpu& gpu) { cuda::difference_norms(gpu, norms, a, b, workspace.tensor()); });
}

void add_sum(Exec& exec, Tensor total, Tensor x) {
  Arguments args("add_sum");
  args.floats("x", x);
  args.contiguous("x", x);
  args.require(total.dtype == DType::f64, "total holds {}; f64 is needed", dtype_name(total.dtype));
  args.shape("total", total, {1});
  const Buffer workspace =
      exec.on_gpu() ? take_workspace(exec, "add_sum.workspace", cuda::add_sum_workspace(x)) : Buffer();
  dispatch(
      exec, args, [&] { cpu::add_sum(total, x); }, [&](Gpu& gpu) { cuda::add_sum(gpu, total, x, workspace.tensor()); });
}

void copy(Exec& exec, Tensor out, Tensor in) {
  const auto is_integer = [](const Tensor& t) { return t.dtype == DType::i32 || t.dtype == DType::u8; };
  Arguments args("copy");
  args.dtype("in", in, in.dtype);
  args.dtype("out", out, out.dtype);
  args.shape("out", out, in.shape);
  args.require(out.dtype == in.dtype || !(is_integer(out) || is_integer(in)), "in holds {}, which does not become {}",
               dtype_name(in.dtype), dtype_name(out.dtype));
  dispatch(
      exec, args, [&] { cpu::copy(out, in); }, [&](Gpu& gpu) { cuda::copy(gpu, out, in); });
}

void round_stochastically(Exec& exec, Tensor out, Tensor in, const RandomStream& stream, uint64_t first) {
  Arguments args("round_stochastically");
  args.dtype("out", out, DType::bf16);
  args.dtype("in", in, DType::f32);
  args.shape("in", in, out.shape);
  args.contiguous("out", out);
  dispatch(
      exec, args, [&] { cpu::round_stochastically(out, in, stream, first); },
      [&](Gpu& gpu) { cuda::round_stochastically(gpu, out, in, stream, first); });
}

void scale(Exec& exec, Tensor x, double factor) {
  Arguments args("scale");
  args.floats("x", x);
  dispatch(
      exec, args, [&] { cpu::scale(x, factor); }, [&](Gpu& gpu) { cuda::scale(gpu, x, factor); });
}

void fill(Exec& exec, Tensor x, double value) {
  Arguments args("fill");
  args.floats("x", x);
  dispatch(
      exec, args, [&] { cpu::fill(x, value); }, [&](Gpu& gpu) { cuda::fill(gpu, x, value); });
}

void fill_normal(Exec& exec, Tensor x, const RandomStream& stream, uint64_t first, float stddev) {
  Arguments args("fill_normal");
  args.floats("x", x);
  args.contiguous("x", x);
  dispatch(
      exec, args, [&] { cpu::fill_normal(x, stream, first, stddev); },
      [&](Gpu& gpu) { cuda::fill_normal(gpu, x, stream, first, stddev); });
}

}  // namespace llmz::ops
