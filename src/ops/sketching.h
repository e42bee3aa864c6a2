#pragma once

#include <optional>

#include "kernels/cuda/twins.h"
#include "llmz/core/exec.h"
#include "llmz/core/projector.h"
#include "src/ops/dispatch.h"

namespace llmz::ops {

/// A projector made ready for use: what a seed gives (a Gaussian matrix, a sign projector's tables) is made once, in
/// planned workspace, and then serves many tiles. For use inside one op.
class Sketching {
 public:
  /// `dtype`: of what is computed: f32, f64, or on a GPU bf16. At most `rows` rows are expanded at once.
  Sketching(Exec& exec, const Projector& p, DType dtype, int64_t rows);

  /// z = x·P, as ops::project.
  void project(Tensor z, Tensor x) const;
  /// out = alpha·z·Pᵀ (+ out), as ops::expand.
  void expand(Tensor out, Tensor z, double alpha, bool accumulate) const;
  /// The diagonal part of PᵀD²P, weights [r]: all of it where `diagonal` says so.
  void gram_weights(Tensor weights, Tensor scale) const;
  /// Q₁ᵀR [r₁,r₂], where R is not orthogonal to Q₁ by itself; else absent. With a `sign` R and no scale
  /// PᵀP = diag(weights) − [0, Q₁ᵀR]ᵀ[0, Q₁ᵀR].
  Tensor overlap() const { return overlap_.tensor(); }
  /// R [n,r₂] of a Gaussian projector; absent for the others.
  Tensor matrix() const { return matrix_.tensor(); }
  /// Tables of a sign projector (kernels/cpu/projector.h); absent for the others.
  Tensor index() const { return index_.tensor(); }
  Tensor signs() const { return signs_.tensor(); }
  /// Whether PᵀD²P is diagonal: without a scale for orthonormal bases, always for a pure sign projector.
  bool diagonal(bool scaled) const;

 private:
  bool deflates() const { return p_.principal.present() && random_is_raw(); }
  bool random_is_raw() const {
    return p_.random == Projector::Random::gaussian || p_.random == Projector::Random::sign;
  }
  void project_random(Tensor z, Tensor x) const;
  void expand_random(Tensor out, Tensor z, double alpha, bool accumulate) const;

  Exec& exec_;
  const Projector& p_;
  Tensor converted(Buffer& copy, const Tensor& basis, DType dtype);

  Tensor principal_, basis_;  ///< Q₁ᵀ, Q₂ᵀ in the type of computation
  Buffer principal_copy_, basis_copy_;
  Buffer matrix_, index_, signs_;  ///< R [n,r₂], or the tables
  Buffer overlap_;                 ///< Q₁ᵀR [r₁,r₂], where R is not orthogonal to Q₁ by itself
  Buffer deflated_;                ///< z₁ − z₂·(Q₁ᵀR)ᵀ of one tile
};

/// What an op that takes a SketchEpilogue does for it: checks, counts the arithmetic, makes the tables. Nothing where
/// no sketch is asked for. For use inside one op, in which x [T,n] is the tensor to sketch.
class SketchEpilogueInOp {
 public:
  SketchEpilogueInOp(Exec& exec, Arguments& args, const SketchEpilogue& epilogue, const Tensor& x);

  /// For the CUDA twin, which makes z itself.
  cuda::SketchEpilogue tables() const;
  /// z, once the CPU twin has written x.
  void on_cpu(Tensor x) const;

 private:
  Tensor z_;
  std::optional<Sketching> sketching_;
};

}  // namespace llmz::ops
