#include "src/ops/sketching.h"

#include <cmath>

#include "kernels/cpu/projector.h"
#include "kernels/cuda/twins.h"
#include "llmz/ops/elementwise.h"
#include "llmz/ops/matmul.h"
#include "src/ops/dispatch.h"

namespace llmz::ops {

Sketching::Sketching(Exec& exec, const Projector& p, DType dtype, int64_t rows) : exec_(exec), p_(p) {
  Arguments args("projector");
  if (p.random == Projector::Random::gaussian) {
    matrix_ = exec.memory.take("projector.gaussian", Category::workspace, {p.width, p.random_rank}, dtype);
    args.floats("R", matrix_.tensor());
    dispatch(
        exec, args, [&] { cpu::gaussian_matrix(matrix_.tensor(), p); },
        [&](Gpu& gpu) { cuda::gaussian_matrix(gpu, matrix_.tensor(), p); });
  } else if (p.random == Projector::Random::sign) {
    index_ = exec.memory.take("projector.index", Category::workspace, {2, p.width}, DType::i32);
    // The CPU adds up in f32 whatever is stored.
    const DType sign_dtype = exec.on_gpu() || dtype == DType::f64 ? dtype : DType::f32;
    signs_ = exec.memory.take("projector.signs", Category::workspace, {2, p.width}, sign_dtype);
    args.floats("signs", signs_.tensor());
    dispatch(
        exec, args, [&] { cpu::sign_tables(index_.tensor(), signs_.tensor(), p); },
        [&](Gpu& gpu) { cuda::sign_tables(gpu, index_.tensor(), signs_.tensor(), p); });
  }
  principal_ = p.principal;
  basis_ = p.random_basis;
  if (p.principal.present() && p.principal.dtype != dtype) principal_ = converted(principal_copy_, p.principal, dtype);
  if (p.random_basis.present() && p.random_basis.dtype != dtype) basis_ = converted(basis_copy_, p.random_basis, dtype);
  if (!deflates()) return;
  overlap_ = exec.memory.take("projector.overlap", Category::workspace, {p.principal_rank, p.random_rank}, dtype);
  project_random(overlap_.tensor(), principal_);
  deflated_ = exec.memory.take("projector.deflated", Category::workspace, {rows, p.principal_rank}, dtype);
}

/// Stored bases are f32. What is computed in bf16 takes a rounded copy, rather than that a long x is widened.
Tensor Sketching::converted(Buffer& copy, const Tensor& basis, DType dtype) {
  copy = exec_.memory.take("projector.basis", Category::workspace, basis.shape, dtype);
  ops::copy(exec_, copy.tensor(), basis);
  return copy.tensor();
}

void Sketching::project_random(Tensor z, Tensor x) const {
  switch (p_.random) {
    case Projector::Random::none: return;
    case Projector::Random::basis: {
      const double root = std::sqrt(p_.random_gain());
      return matmul(exec_, {.c = z, .a = x, .b = basis_, .transpose_b = true, .alpha = root});
    }
    case Projector::Random::gaussian: return matmul(exec_, {.c = z, .a = x, .b = matrix_.tensor()});
    case Projector::Random::sign: break;
  }
  Arguments args("sign_project");
  args.floats("z", z);
  args.floats("x", x);
  exec_.flops += 2.0 * static_cast<double>(x.numel());
  dispatch(
      exec_, args, [&] { cpu::sign_project(z, x, index_.tensor(), signs_.tensor()); },
      [&](Gpu& gpu) { cuda::sign_project(gpu, z, x, index_.tensor(), signs_.tensor()); });
}

void Sketching::expand_random(Tensor out, Tensor z, double alpha, bool accumulate) const {
  switch (p_.random) {
    case Projector::Random::none: return;
    case Projector::Random::basis: {
      const double root = std::sqrt(p_.random_gain());
      return matmul(exec_, {.c = out, .a = z, .b = basis_, .accumulate = accumulate, .alpha = alpha * root});
    }
    case Projector::Random::gaussian:
      return matmul(
          exec_,
          {.c = out, .a = z, .b = matrix_.tensor(), .transpose_b = true, .accumulate = accumulate, .alpha = alpha});
    case Projector::Random::sign: break;
  }
  Arguments args("sign_expand");
  args.floats("out", out);
  args.floats("z", z);
  exec_.flops += 2.0 * static_cast<double>(out.numel());
  dispatch(
      exec_, args, [&] { cpu::sign_expand(out, z, index_.tensor(), signs_.tensor(), alpha, accumulate); },
      [&](Gpu& gpu) { cuda::sign_expand(gpu, out, z, index_.tensor(), signs_.tensor(), alpha, accumulate); });
}

/// With R not orthogonal to Q₁: (x − xQ₁Q₁ᵀ)R = xR − (xQ₁)(Q₁ᵀR).
void Sketching::project(Tensor z, Tensor x) const {
  const int64_t r1 = p_.principal_rank, r2 = p_.random_rank;
  if (r1 > 0) matmul(exec_, {.c = z.slice(1, 0, r1), .a = x, .b = principal_, .transpose_b = true});
  if (r2 == 0) return;
  const Tensor random = z.slice(1, r1, r2);
  project_random(random, x);
  if (!deflates()) return;
  matmul(exec_, {.c = random, .a = z.slice(1, 0, r1), .b = overlap_.tensor(), .accumulate = true, .alpha = -1.0});
}

/// z₁Q₁ᵀ + z₂Rᵀ(I − Q₁Q₁ᵀ) = (z₁ − z₂(Q₁ᵀR)ᵀ)Q₁ᵀ + z₂Rᵀ.
void Sketching::expand(Tensor out, Tensor z, double alpha, bool accumulate) const {
  const int64_t r1 = p_.principal_rank, r2 = p_.random_rank;
  Tensor head = r1 > 0 ? z.slice(1, 0, r1) : Tensor();
  const Tensor random = r2 > 0 ? z.slice(1, r1, r2) : Tensor();
  if (deflates()) {
    const Tensor deflated = deflated_.tensor().slice(0, 0, z.dim(0));
    copy(exec_, deflated, head);
    matmul(
        exec_,
        {.c = deflated, .a = random, .b = overlap_.tensor(), .transpose_b = true, .accumulate = true, .alpha = -1.0});
    head = deflated;
  }
  if (r1 > 0) matmul(exec_, {.c = out, .a = head, .b = principal_, .accumulate = accumulate, .alpha = alpha});
  if (r2 > 0) expand_random(out, random, alpha, accumulate || r1 > 0);
}

bool Sketching::diagonal(bool scaled) const {
  if (!p_.principal.present() && p_.random == Projector::Random::sign) return true;
  return !scaled && !random_is_raw();
}

void Sketching::gram_weights(Tensor weights, Tensor scale) const {
  if (p_.random == Projector::Random::sign) {
    Arguments args("sign_weights");
    args.floats("weights", weights);
    if (p_.principal_rank > 0) fill(exec_, weights, 1.0);
    const Tensor random = weights.slice(0, p_.principal_rank, p_.random_rank);
    return dispatch(
        exec_, args, [&] { cpu::sign_weights(random, scale, index_.tensor()); },
        [&](Gpu& gpu) { cuda::sign_weights(gpu, random, scale, index_.tensor()); });
  }
  fill(exec_, weights, 1.0);
  if (p_.random == Projector::Random::basis) {
    fill(exec_, weights.slice(0, p_.principal_rank, p_.random_rank), p_.random_gain());
  }
}

SketchEpilogueInOp::SketchEpilogueInOp(Exec& exec, Arguments& args, const SketchEpilogue& epilogue, const Tensor& x) {
  if (!epilogue.present()) return;
  const Projector& p = *epilogue.projector;
  args.rank("x", x, 2);
  args.require(p.only_signs(), "only a sign projector's sketch is made along with what it is of");
  args.require(x.dim(1) == p.width, "{} has {} features, the projector {}", x.shape.str(), x.dim(1), p.width);
  args.floats("z", epilogue.z, {x.dim(0), p.rank()});
  z_ = epilogue.z;
  exec.flops += 2.0 * static_cast<double>(x.numel());
  sketching_.emplace(exec, p, args.is_double() ? DType::f64 : DType::f32, 1);
}

cuda::SketchEpilogue SketchEpilogueInOp::tables() const {
  if (!sketching_) return {};
  return {z_, sketching_->index(), sketching_->signs()};
}

void SketchEpilogueInOp::on_cpu(Tensor x) const {
  if (sketching_) cpu::sign_project(z_, x, sketching_->index(), sketching_->signs());
}

}  // namespace llmz::ops
