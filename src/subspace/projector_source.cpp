#include "llmz/subspace/projector_source.h"

#include <algorithm>

#include "llmz/ops/decompose.h"
#include "llmz/ops/elementwise.h"
#include "llmz/ops/matmul.h"
#include "llmz/ops/optimizer.h"
#include "llmz/subspace/streams.h"

namespace llmz::subspace {
namespace {

/// Power iterations from a cold start; one is enough from a warm one.
constexpr int kColdIterations = 4;

Projector::Random random_of(const ProjectorConfig& config) {
  switch (config.kind) {
    case ProjectorKind::gaussian: return Projector::Random::gaussian;
    case ProjectorKind::sign: return Projector::Random::sign;
    case ProjectorKind::haar: return Projector::Random::basis;
    case ProjectorKind::principal: return Projector::Random::none;
    case ProjectorKind::prac: return config.random;
  }
  return Projector::Random::none;
}

bool has_principal(const ProjectorConfig& config) {
  return config.kind == ProjectorKind::principal || config.kind == ProjectorKind::prac;
}

}  // namespace

ProjectorSource::ProjectorSource(const ProjectorConfig& config, const std::string& name, int64_t width, DType dtype,
                                 StreamId stream, const Clock* clock, Memory& memory)
    : config_(config),
      name_(name),
      number_(stream.number),
      basis_dtype_(dtype == DType::f64 ? DType::f64 : DType::f32),
      clock_(clock) {
  Projector& p = projector_;
  p.width = width;
  p.layer = stream.id;
  p.random = random_of(config);
  const bool principal = has_principal(config);
  if (principal) p.principal_rank = rank_of(config.rank, width);
  if (p.random != Projector::Random::none) {
    p.random_rank = rank_of(principal ? config.random_rank : config.rank, width);
    if (principal) p.random_rank = std::min(p.random_rank, width - p.principal_rank);
  }
  if (p.random_rank == 0) p.random = Projector::Random::none;
  if (config_.random_refresh == 0 || config_.kind != ProjectorKind::prac) config_.random_refresh = config_.refresh;

  const auto keep = [&](const char* part, Shape shape) {
    return memory.persistent(name + part, Category::projectors, shape, basis_dtype_);
  };
  if (principal) {
    p.principal = keep(".principal", {p.principal_rank, width});
    spectrum_ = {.name = name, .values = keep(".spectrum", {p.principal_rank}), .total = keep(".energy", {1})};
  }
  if (p.random == Projector::Random::basis) p.random_basis = keep(".random", {p.random_rank, width});
  advance();
}

uint64_t ProjectorSource::seed_of_period(int64_t period) const {
  const uint64_t seed = config_.seed != 0 ? config_.seed : clock_->seed;
  return derived_seed(seed, Purpose::projector, projector_.layer, static_cast<uint64_t>(period));
}

/// Q₂ must be orthogonal to the current Q₁, so it is renewed whenever Q₁ is.
void ProjectorSource::advance() {
  const int64_t step = clock_->step, random = config_.random_refresh;
  const int64_t principal = projector_.principal.present() ? config_.refresh : random;
  projector_.age = std::min(step % principal, step % random);
  projector_.changed = clock_->is_due(random) || clock_->is_due(principal);
  projector_.seed = seed_of_period(step - projector_.age);
  const int64_t before = std::max<int64_t>(step - projector_.age - 1, 0);
  projector_.previous_seed = seed_of_period(before - std::min(before % principal, before % random));
}

std::vector<int64_t> ProjectorSource::periods() const {
  std::vector<int64_t> all = {config_.random_refresh};
  if (projector_.principal.present()) all.push_back(config_.refresh);
  return all;
}

bool ProjectorSource::principal_due() const {
  return projector_.principal.present() && clock_->is_due(config_.refresh);
}

bool ProjectorSource::random_due() const {
  return projector_.random_basis.present() && (clock_->is_due(config_.random_refresh) || principal_due());
}

void ProjectorSource::observe(Exec& exec, Tensor x) {
  if (clock_->owner_of(number_) != clock_->rank) return;  // it comes from there
  if (principal_due()) find_principal(exec, x);
  if (!random_due()) return;
  const RandomStream stream(projector_.seed, Purpose::projector, projector_.layer);
  ops::fill_normal(exec, projector_.random_basis, stream, 0, 1.0f);
  ops::orthonormalize(exec, projector_.random_basis, projector_.principal);
}

/// Some orthonormal rows to begin with.
void ProjectorSource::start(Exec& exec) {
  const RandomStream stream(projector_.seed, Purpose::projector, projector_.layer);
  // Numbers that neither a Gaussian nor a Haar part uses.
  constexpr uint64_t kBeyond = uint64_t{1} << 40;
  ops::fill_normal(exec, projector_.principal, stream, kBeyond, 1.0f);
  ops::orthonormalize(exec, projector_.principal, {});
}

void ProjectorSource::find_principal(Exec& exec, Tensor x) {
  const int64_t n = projector_.width;
  ops::fill(exec, spectrum_.total, 0.0f);
  ops::sum_of_squares(exec, spectrum_.total, x);
  if (config_.decomposition == Decomposition::exact) {
    const Buffer gram = exec.memory.take("refresh.gram", Category::workspace, {n, n}, basis_dtype_);
    ops::matmul(exec, {.c = gram.tensor(), .a = x, .b = x, .transpose_a = true});
    ops::leading_eigenvectors(exec, projector_.principal, spectrum_.values, gram.tensor());
    return;
  }
  if (clock_->step > 0) return subspace_iteration(exec, x);
  start(exec);
  for (int i = 0; i < kColdIterations; ++i) subspace_iteration(exec, x);
}

/// One step of orthogonal iteration on XᵀX, which is never formed: Q ← orth(Q·Xᵀ·X).
void ProjectorSource::subspace_iteration(Exec& exec, Tensor x) {
  const Tensor q = projector_.principal;
  // Where bf16 is multiplied by bf16 the few directions are rounded, rather than the long x widened.
  const DType dtype = ops::product_dtype(exec, x);
  const bool rounds = dtype != basis_dtype_;
  const Buffer seen =
      exec.memory.take("refresh.projected", Category::workspace, {projector_.principal_rank, x.dim(0)}, dtype);
  const Buffer rounded =
      rounds ? exec.memory.take("refresh.directions", Category::workspace, q.shape, dtype) : Buffer();
  const auto look = [&] {
    if (rounds) ops::copy(exec, rounded.tensor(), q);
    ops::matmul(exec, {.c = seen.tensor(), .a = rounds ? rounded.tensor() : q, .b = x, .transpose_b = true});
  };
  look();
  ops::matmul(exec, {.c = q, .a = seen.tensor(), .b = x});
  ops::orthonormalize(exec, q, {});
  look();
  ops::row_dot(exec, spectrum_.values, seen.tensor(), seen.tensor());
}

std::vector<State> ProjectorSource::states() const {
  std::vector<State> all;
  const int owner = clock_->owner_of(number_);
  if (projector_.principal.present()) {
    all.push_back({name_ + ".principal", projector_.principal, owner, principal_due()});
  }
  if (projector_.random_basis.present()) {
    all.push_back({name_ + ".random", projector_.random_basis, owner, random_due()});
  }
  return all;
}

std::vector<Spectrum> ProjectorSource::spectra() const {
  if (!projector_.principal.present()) return {};
  Spectrum spectrum = spectrum_;
  spectrum.owner = clock_->owner_of(number_);
  return {spectrum};
}

}  // namespace llmz::subspace
