#pragma once

#include <vector>

#include "llmz/core/projector.h"
#include "llmz/core/random.h"
#include "llmz/core/sign_map.h"
#include "ops/reference.h"

namespace llmz::test {

/// A projector with its bases, and P written out as the contract of core/projector.h says.
struct ReferenceProjector {
  Projector view;
  HostTensor principal, random_basis;
  std::vector<double> dense;  ///< [n,r]

  double at(int64_t i, int64_t j) const { return dense[static_cast<size_t>(i * view.rank() + j)]; }
};

/// Orthonormal rows [k,n] by Gram–Schmidt, twice, orthogonal to `against`.
inline std::vector<double> orthonormal_rows(int64_t k, int64_t n, unsigned seed,
                                            const std::vector<double>& against = {}) {
  HostTensor random = HostTensor::random(DType::f64, {k, n}, seed);
  std::vector<double> rows = random.values();
  const int64_t others = static_cast<int64_t>(against.size()) / n;
  for (int64_t i = 0; i < k; ++i) {
    double* row = rows.data() + i * n;
    for (int pass = 0; pass < 2; ++pass) {
      for (int64_t o = 0; o < others + i; ++o) {
        const double* other = o < others ? against.data() + o * n : rows.data() + (o - others) * n;
        double dot = 0;
        for (int64_t c = 0; c < n; ++c) dot += row[c] * other[c];
        for (int64_t c = 0; c < n; ++c) row[c] -= dot * other[c];
      }
    }
    double squares = 0;
    for (int64_t c = 0; c < n; ++c) squares += row[c] * row[c];
    for (int64_t c = 0; c < n; ++c) row[c] /= std::sqrt(squares);
  }
  return rows;
}

/// R [n,r₂] before it is deflated.
inline std::vector<double> random_part(const Projector& p, const HostTensor& basis) {
  const int64_t n = p.width, r = p.random_rank;
  std::vector<double> matrix(static_cast<size_t>(n * r));
  const RandomStream stream(p.seed, Purpose::projector, p.layer);
  const SignMap map(p.seed, p.layer, n);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < r; ++j) {
      double& element = matrix[static_cast<size_t>(i * r + j)];
      if (p.random == Projector::Random::gaussian) {
        const float stddev = 1.0f / std::sqrt(static_cast<float>(r));  // in fp32 for every dtype
        element = static_cast<double>(stddev * stream.normal(static_cast<uint64_t>(i * r + j)));
      } else if (p.random == Projector::Random::sign) {
        element = map.position(i) % r == j ? static_cast<double>(map.sign(i)) : 0.0;
      } else {
        element = std::sqrt(p.random_gain()) * basis.get(j * n + i);
      }
    }
  }
  return matrix;
}

inline ReferenceProjector make_projector(Projector::Random random, int64_t n, int64_t r1, int64_t r2, DType dtype,
                                         uint64_t seed = 5) {
  ReferenceProjector ref;
  Projector& p = ref.view;
  p = {.width = n, .principal_rank = r1, .random_rank = r2, .random = random, .seed = seed, .layer = 3};
  std::vector<double> head;
  if (r1 > 0) {
    ref.principal = HostTensor(dtype, {r1, n});
    ref.principal.assign(orthonormal_rows(r1, n, 11));
    head = ref.principal.values();  // as rounded
    p.principal = ref.principal.tensor();
  }
  if (random == Projector::Random::basis) {
    ref.random_basis = HostTensor(dtype, {r2, n});
    ref.random_basis.assign(orthonormal_rows(r2, n, static_cast<unsigned>(100 + seed), head));
    p.random_basis = ref.random_basis.tensor();
  }
  const std::vector<double> raw = r2 > 0 ? random_part(p, ref.random_basis) : std::vector<double>();
  const bool deflates = random == Projector::Random::gaussian || random == Projector::Random::sign;
  ref.dense.resize(static_cast<size_t>(n * (r1 + r2)));
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < r1; ++j)
      ref.dense[static_cast<size_t>(i * (r1 + r2) + j)] = head[static_cast<size_t>(j * n + i)];
  }
  for (int64_t j = 0; j < r2; ++j) {
    std::vector<double> column(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) column[static_cast<size_t>(i)] = raw[static_cast<size_t>(i * r2 + j)];
    for (int64_t q = 0; deflates && q < r1; ++q) {
      double dot = 0;
      for (int64_t i = 0; i < n; ++i)
        dot += head[static_cast<size_t>(q * n + i)] * raw[static_cast<size_t>(i * r2 + j)];
      for (int64_t i = 0; i < n; ++i) column[static_cast<size_t>(i)] -= dot * head[static_cast<size_t>(q * n + i)];
    }
    for (int64_t i = 0; i < n; ++i)
      ref.dense[static_cast<size_t>(i * (r1 + r2) + r1 + j)] = column[static_cast<size_t>(i)];
  }
  return ref;
}

/// Every kind with and without a principal part, at a width that no rank divides.
struct ProjectorKind {
  const char* name;
  Projector::Random random;
  int64_t r1, r2;
};
inline const ProjectorKind kProjectorKinds[] = {{"gaussian", Projector::Random::gaussian, 0, 7},
                                                {"sign", Projector::Random::sign, 0, 7},
                                                {"haar", Projector::Random::basis, 0, 7},
                                                {"principal", Projector::Random::none, 5, 0},
                                                {"prac haar", Projector::Random::basis, 4, 7},
                                                {"prac sign", Projector::Random::sign, 4, 7},
                                                {"prac gaussian", Projector::Random::gaussian, 4, 7}};

}  // namespace llmz::test
