#include "llmz/ops/decompose.h"

#include "kernels/cpu/decompose.h"
#include "kernels/cuda/twins.h"
#include "src/ops/dispatch.h"

namespace llmz::ops {

void orthonormalize(Exec& exec, Tensor basis, Tensor against) {
  Arguments args("orthonormalize");
  args.floats("basis", basis);
  args.rank("basis", basis, 2);
  args.contiguous("basis", basis);
  const int64_t k = basis.dim(0), n = basis.dim(1);
  int64_t others = 0;
  if (against.present()) {
    others = against.dim(0);
    args.floats("against", against, {others, n});
    args.contiguous("against", against);
  }
  args.require(k + others <= n, "{} + {} orthogonal directions do not fit into {} dimensions", k, others, n);
  constexpr const char* kName = "orthonormalize.rows";
  const Buffer work = exec.on_gpu() ? take_workspace(exec, kName, cuda::orthonormalize_workspace(basis, against))
                                    : take_workspace(exec, kName, {2 * k + others, n}, DType::f64);
  dispatch(
      exec, args, [&] { cpu::orthonormalize(basis, against, work.tensor()); },
      [&](Gpu& gpu) { cuda::orthonormalize(gpu, basis, against, work.tensor()); });
}

void leading_eigenvectors(Exec& exec, Tensor basis, Tensor values, Tensor gram) {
  Arguments args("leading_eigenvectors");
  args.floats("gram", gram);
  args.rank("gram", gram, 2);
  const int64_t n = gram.dim(0);
  args.require(gram.dim(1) == n, "gram {} is not square", gram.shape.str());
  args.floats("basis", basis);
  args.rank("basis", basis, 2);
  args.require(basis.dim(1) == n && basis.dim(0) <= n, "basis {} does not fit gram {}", basis.shape.str(),
               gram.shape.str());
  args.floats("values", values, {basis.dim(0)});
  for (const auto& [name, t] : {std::pair{"basis", basis}, {"gram", gram}}) args.contiguous(name, t);
  constexpr const char* kName = "eigenvectors.gram";
  const Buffer work = exec.on_gpu() ? take_workspace(exec, kName, cuda::eigenvectors_workspace(gram))
                                    : take_workspace(exec, kName, {n, n}, DType::f64);
  dispatch(
      exec, args, [&] { cpu::leading_eigenvectors(basis, values, gram, work.tensor()); },
      [&](Gpu& gpu) { cuda::leading_eigenvectors(gpu, basis, values, gram, work.tensor()); });
}

}  // namespace llmz::ops
