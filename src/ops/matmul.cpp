#include "llmz/ops/matmul.h"

#include "kernels/cpu/twins.h"
#include "src/ops/dispatch.h"

namespace llmz::ops {

void matmul(Exec& exec, const MatmulArgs& args) {
  const auto& [c, a, b, transpose_a, transpose_b, accumulate, alpha] = args;
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
  check.require(c.data == nullptr || c.numel() == 0 || (c.data != a.data && c.data != b.data),
                "c {} is its own operand", c.shape.str());
  exec.flops += 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);

  const int64_t elements = cpu::matmul_workspace(args);
  Buffer workspace;
  if (elements > 0) workspace = exec.memory.take("matmul.workspace", Category::workspace, {elements}, DType::f32);
  dispatch(exec, check, [&] { cpu::matmul(args, workspace.tensor()); });
}

void add_bias(Exec& exec, Tensor y, Tensor bias) {
  Arguments check("add_bias");
  check.floats("y", y);
  check.rank("y", y, 2);
  check.floats("bias", bias, {y.dim(1)});
  dispatch(exec, check, [&] { cpu::add_bias(y, bias); });
}

void bias_backward(Exec& exec, Tensor dbias, Tensor dy) {
  Arguments check("bias_backward");
  check.floats("dy", dy);
  check.rank("dy", dy, 2);
  check.floats("dbias", dbias, {dy.dim(1)});
  dispatch(exec, check, [&] { cpu::bias_backward(dbias, dy); });
}

}  // namespace llmz::ops
