#include "llmz/ops/matmul.h"

#include "kernels/cpu/twins.h"
#include "kernels/cuda/twins.h"
#include "src/ops/dispatch.h"

namespace llmz::ops {

namespace {

Buffer take_matmul_workspace(Exec& exec, const MatmulArgs& args) {
  constexpr const char* kName = "matmul.workspace";
  if (exec.on_gpu()) return take_workspace(exec, kName, cuda::matmul_workspace(args));
  const int64_t elements = cpu::matmul_workspace(args);
  return elements > 0 ? take_workspace(exec, kName, {elements}, DType::f32) : Buffer();
}

}  // namespace

void matmul(Exec& exec, const MatmulArgs& args) {
  const auto& [c, a, b, transpose_a, transpose_b, accumulate, alpha, bias] = args;
  Arguments check("matmul");
  check.floats("c", c);
  check.floats("a", a);
  check.floats("b", b);
  for (const auto& [name, tensor] : {std::pair{"c", c}, {"a", a}, {"b", b}}) check.rank(name, tensor, 2);
  const int64_t m = c.dim(0), n = c.dim(1);
  const int64_t k = a.dim(transpose_a ? 0 : 1);
  check.require(a.dim(transpose_a ? 1 : 0) == m && b.dim(transpose_b ? 1 : 0) == k && b.dim(transpose_b ? 0 : 1) == n,
                "c {} = a {}{} · b {}{} does not fit together", c.shape.str(), a.shape.str(), transpose_a ? "ᵀ" : "",
                b.shape.str(), transpose_b ? "ᵀ" : "");
  if (bias.present()) check.floats("bias", bias, {n});
  check.require(c.data == nullptr || c.numel() == 0 || (c.data != a.data && c.data != b.data),
                "c {} is its own operand", c.shape.str());
  exec.flops += 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);

  const Buffer workspace = take_matmul_workspace(exec, args);
  dispatch(
      exec, check, [&] { cpu::matmul(args, workspace.tensor()); },
      [&](Gpu& gpu) { cuda::matmul(gpu, args, workspace.tensor()); });
}

bool multiplies_bf16(DeviceType device) { return device == DeviceType::cuda || cpu::multiplies_bf16(); }

DType product_dtype(const Exec& exec, const Tensor& x) {
  return x.dtype == DType::bf16 && !multiplies_bf16(exec.memory.target()) ? DType::f32 : x.dtype;
}

void add_bias(Exec& exec, Tensor y, Tensor bias) {
  Arguments check("add_bias");
  check.floats("y", y);
  check.rank("y", y, 2);
  check.floats("bias", bias, {y.dim(1)});
  dispatch(
      exec, check, [&] { cpu::add_bias(y, bias); }, [&](Gpu& gpu) { cuda::add_bias(gpu, y, bias); });
}

void bias_backward(Exec& exec, Tensor dbias, Tensor dy) {
  Arguments check("bias_backward");
  check.floats("dy", dy);
  check.rank("dy", dy, 2);
  check.floats("dbias", dbias, {dy.dim(1)});
  const Buffer workspace =
      exec.on_gpu() ? take_workspace(exec, "bias_backward.workspace", cuda::bias_backward_workspace(dy)) : Buffer();
  dispatch(
      exec, check, [&] { cpu::bias_backward(dbias, dy); },
      [&](Gpu& gpu) { cuda::bias_backward(gpu, dbias, dy, workspace.tensor()); });
}

}  // namespace llmz::ops
