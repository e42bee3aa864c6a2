#include "llmz/ops/elementwise.h"

#include "kernels/cpu/twins.h"
#include "src/ops/dispatch.h"

namespace llmz::ops {

void add(Exec& exec, Tensor y, Tensor x) {
  Arguments args("add");
  args.floats("y", y);
  args.floats("x", x, y.shape);
  dispatch(exec, args, [&] { cpu::add(y, x); });
}

void copy(Exec& exec, Tensor out, Tensor in) {
  const auto is_integer = [](const Tensor& t) { return t.dtype == DType::i32 || t.dtype == DType::u8; };
  Arguments args("copy");
  args.dtype("in", in, in.dtype);
  args.dtype("out", out, out.dtype);
  args.shape("out", out, in.shape);
  args.require(out.dtype == in.dtype || !(is_integer(out) || is_integer(in)), "in holds {}, which does not become {}",
               dtype_name(in.dtype), dtype_name(out.dtype));
  dispatch(exec, args, [&] { cpu::copy(out, in); });
}

void fill(Exec& exec, Tensor x, float value) {
  Arguments args("fill");
  args.floats("x", x);
  dispatch(exec, args, [&] { cpu::fill(x, value); });
}

void fill_normal(Exec& exec, Tensor x, const RandomStream& stream, uint64_t first, float stddev) {
  Arguments args("fill_normal");
  args.floats("x", x);
  args.contiguous("x", x);
  dispatch(exec, args, [&] { cpu::fill_normal(x, stream, first, stddev); });
}

}  // namespace llmz::ops
