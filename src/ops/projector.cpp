#include "llmz/ops/projector.h"

#include "llmz/ops/elementwise.h"
#include "llmz/ops/matmul.h"
#include "llmz/ops/norm.h"
#include "src/ops/dispatch.h"
#include "src/ops/low_rank.h"

namespace llmz::ops {
namespace {

DType compute_dtype(const Tensor& t) { return t.dtype == DType::f64 ? DType::f64 : DType::f32; }

void check_projector(Arguments& args, const Projector& p) {
  args.require(p.rank() >= 1 && p.rank() <= p.width, "rank {} + {} does not fit a width of {}", p.principal_rank,
               p.random_rank, p.width);
  if (p.principal_rank > 0) args.floats("principal", p.principal, {p.principal_rank, p.width});
  if (p.random == Projector::Random::basis) args.floats("random_basis", p.random_basis, {p.random_rank, p.width});
  args.require((p.random == Projector::Random::none) == (p.random_rank == 0), "{} random columns and no kind for them",
               p.random_rank);
}

void check_sketch(Arguments& args, const Tensor& x, const Tensor& z, const Projector& p) {
  args.floats("x", x);
  args.rank("x", x, 2);
  args.require(x.dim(1) == p.width, "{} has {} features, the projector {}", x.shape.str(), x.dim(1), p.width);
  check_projector(args, p);
  args.floats("z", z, {x.dim(0), p.rank()});
}

/// total += factor·Σ_ij a_ij·b_ij.
void add_product_sum(Exec& exec, Tensor total, Tensor a, Tensor b, float factor = 1.0f) {
  const int64_t rows = a.dim(0);
  const Buffer sums = exec.memory.take("product_sum.rows", Category::workspace, {rows}, total.dtype);
  const Buffer ones = exec.memory.take("product_sum.ones", Category::workspace, {rows}, total.dtype);
  row_dot(exec, sums.tensor(), a, b);
  fill(exec, ones.tensor(), 1.0f);
  row_dot(exec, total, sums.tensor().reshape({1, rows}), ones.tensor(), factor, true);
}

/// PᵀD²P [r,r], from PᵀD [r,n].
void make_gram(Exec& exec, Tensor gram, const LowRankGrad& grad, const Sketching& sketching) {
  const Projector& p = *grad.projector;
  const int64_t r = p.rank();
  if (p.principal_rank == 0 && sketching.matrix().present() && !grad.column_scale.present()) {
    const Tensor matrix = sketching.matrix();
    return matmul(exec, {.c = gram, .a = matrix, .b = matrix, .transpose_a = true});
  }
  const Buffer identity = exec.memory.take("gram.identity", Category::workspace, {r, r}, gram.dtype);
  const Buffer rows = exec.memory.take("gram.rows", Category::workspace, {r, p.width}, gram.dtype);
  set_identity(exec, identity.tensor());
  sketching.expand(rows.tensor(), identity.tensor(), 1.0f, false);
  if (grad.column_scale.present()) norm_apply_gain(exec, rows.tensor(), rows.tensor(), grad.column_scale, {});
  matmul(exec, {.c = gram, .a = rows.tensor(), .b = rows.tensor(), .transpose_b = true});
}

/// total −= ‖Ĝ₂·(Q₁ᵀR)ᵀ‖²: what the principal part takes out of a sign projector's own Gram matrix.
void subtract_overlap(Exec& exec, Tensor total, const LowRankGrad& grad, const Sketching& sketching) {
  const int64_t r1 = grad.projector->principal_rank, r2 = grad.projector->random_rank;
  const Buffer inside =
      exec.memory.take("expanded_norm.inside", Category::workspace, {grad.factor.dim(0), r1}, total.dtype);
  matmul(exec,
         {.c = inside.tensor(), .a = grad.factor.slice(1, r1, r2), .b = sketching.overlap(), .transpose_b = true});
  add_product_sum(exec, total, inside.tensor(), inside.tensor(), -1.0f);
}

/// What u·vᵀ adds to ‖A + u·vᵀ‖² for A = Ĝ·PᵀD: 2·uᵀ·Ĝ·(Pᵀ(D·v)) + ‖u‖²‖v‖².
void add_outer_terms(Exec& exec, Tensor total, const LowRankGrad& grad, const Sketching& sketching) {
  const int64_t m = grad.factor.dim(0), r = grad.factor.dim(1), n = grad.projector->width;
  const DType dtype = total.dtype;
  const auto take = [&](const char* name, Shape shape) {
    return exec.memory.take(name, Category::workspace, shape, dtype);
  };
  const Tensor u = grad.row_term, v = grad.column_term;
  const Buffer scaled = take("outer.scaled", {1, n}), seen = take("outer.seen", {1, r}),
               met = take("outer.met", {m, 1});
  copy(exec, scaled.tensor().reshape({n}), v);
  if (grad.column_scale.present()) norm_apply_gain(exec, scaled.tensor(), scaled.tensor(), grad.column_scale, {});
  sketching.project(seen.tensor(), scaled.tensor());
  matmul(exec, {.c = met.tensor(), .a = grad.factor, .b = seen.tensor(), .transpose_b = true});
  row_dot(exec, total, met.tensor().reshape({1, m}), u, 2.0f, true);
  const Buffer uu = take("outer.uu", {1}), vv = take("outer.vv", {1});
  row_dot(exec, uu.tensor(), u.reshape({1, m}), u);
  row_dot(exec, vv.tensor(), v.reshape({1, n}), v);
  row_dot(exec, total, uu.tensor().reshape({1, 1}), vv.tensor(), 1.0f, true);
}

/// Rows first … of the gradient; `factor` is grad.factor or a copy of it.
void expand_rows(Exec& exec, Tensor out, const LowRankGrad& grad, Tensor factor, const Sketching& sketching,
                 int64_t first) {
  const int64_t rows = out.dim(0);
  sketching.expand(out, factor.slice(0, first, rows), 1.0f, false);
  if (grad.column_scale.present()) norm_apply_gain(exec, out, out, grad.column_scale, {});
  if (!grad.row_term.present()) return;
  const Tensor u = grad.row_term.slice(0, first, rows).reshape({rows, 1});
  matmul(exec, {.c = out, .a = u, .b = grad.column_term.reshape({1, out.dim(1)}), .accumulate = true});
}

}  // namespace

void check_low_rank(std::string_view op, const LowRankGrad& grad, int64_t m, int64_t n) {
  Arguments args(op);
  args.require(grad.projector != nullptr, "a low-rank gradient without a projector");
  args.require(grad.projector->width == n, "the projector's width {} is not the weight's {}", grad.projector->width, n);
  args.floats("factor", grad.factor, {m, grad.projector->rank()});
  args.contiguous("factor", grad.factor);
  check_projector(args, *grad.projector);
  if (grad.column_scale.present()) args.floats("column_scale", grad.column_scale, {n});
  args.require(grad.row_term.present() == grad.column_term.present(), "row_term and column_term go together");
  if (grad.row_term.present()) {
    args.floats("row_term", grad.row_term, {m});
    args.floats("column_term", grad.column_term, {n});
  }
}

ExpandedTiles::ExpandedTiles(Exec& exec, const LowRankGrad& grad, bool in_bf16)
    : exec_(exec),
      grad_(grad),
      sketching_(exec, *grad.projector, in_bf16 ? DType::bf16 : compute_dtype(grad.factor),
                 std::min(kTileRows, grad.factor.dim(0))),
      tile_(exec.memory.take("gradient.tile", Category::workspace,
                             {std::min(kTileRows, grad.factor.dim(0)), grad.projector->width},
                             compute_dtype(grad.factor))) {
  if (!in_bf16 || grad.factor.dtype == DType::bf16) return;
  factor_ = exec.memory.take("gradient.factor", Category::workspace, grad.factor.shape, DType::bf16);
  copy(exec, factor_.tensor(), grad.factor);
}

void ExpandedTiles::expand(Tensor tile, int64_t first) {
  expand_rows(exec_, tile, grad_, factor_ ? factor_.tensor() : grad_.factor, sketching_, first);
}

void project(Exec& exec, Tensor z, Tensor x, const Projector& p) {
  Arguments args("project");
  check_sketch(args, x, z, p);
  Sketching(exec, p, product_dtype(exec, z), 1).project(z, x);
}

void expand(Exec& exec, const ExpandArgs& a, const Projector& p) {
  Arguments args("expand");
  check_sketch(args, a.out, a.z, p);
  Sketching(exec, p, product_dtype(exec, a.z), a.z.dim(0)).expand(a.out, a.z, a.alpha, a.accumulate);
}

void expanded_sum_of_squares(Exec& exec, Tensor total, const LowRankGrad& grad) {
  const int64_t m = grad.factor.dim(0), r = grad.factor.dim(1);
  check_low_rank("expanded_sum_of_squares", grad, m, grad.projector->width);
  const DType dtype = compute_dtype(grad.factor);
  const Sketching sketching(exec, *grad.projector, dtype, r);
  const Buffer weighted = exec.memory.take("expanded_norm.weighted", Category::workspace, {m, r}, dtype);
  const bool overlaps = grad.projector->random == Projector::Random::sign && !grad.column_scale.present() &&
                        sketching.overlap().present();
  if (overlaps) subtract_overlap(exec, total, grad, sketching);
  if (overlaps || sketching.diagonal(grad.column_scale.present())) {
    const Buffer weights = exec.memory.take("expanded_norm.weights", Category::workspace, {r}, dtype);
    sketching.gram_weights(weights.tensor(), grad.column_scale);
    norm_apply_gain(exec, weighted.tensor(), grad.factor, weights.tensor(), {});
  } else {
    const Buffer gram = exec.memory.take("expanded_norm.gram", Category::workspace, {r, r}, dtype);
    make_gram(exec, gram.tensor(), grad, sketching);
    matmul(exec, {.c = weighted.tensor(), .a = grad.factor, .b = gram.tensor()});
  }
  add_product_sum(exec, total, weighted.tensor(), grad.factor);
  if (grad.row_term.present()) add_outer_terms(exec, total, grad, sketching);
}

void expand_gradient(Exec& exec, Tensor out, const LowRankGrad& grad, int64_t first_row) {
  check_low_rank("expand_gradient", grad, grad.factor.dim(0), grad.projector->width);
  Arguments args("expand_gradient");
  args.floats("out", out);
  args.require(out.dim(1) == grad.projector->width && first_row >= 0 && first_row + out.dim(0) <= grad.factor.dim(0),
               "rows {} + {} of {} do not fit {}", first_row, out.dim(0), grad.factor.dim(0), out.shape.str());
  const Sketching sketching(exec, *grad.projector, compute_dtype(grad.factor), out.dim(0));
  expand_rows(exec, out, grad, grad.factor, sketching, first_row);
}

}  // namespace llmz::ops
