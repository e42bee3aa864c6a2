#include "llmz/subspace/config.h"

#include <algorithm>
#include <cmath>

#include "llmz/core/decimal.h"
#include "llmz/core/error.h"

namespace llmz::subspace {
namespace {

void check_rank(float rank, const std::string& key, int64_t width) {
  check(std::isfinite(rank) && rank > 0, "{} = {} must be above 0: a fraction up to 1, or a number of columns", key,
        rank);
  check(rank <= 1.0f || static_cast<double>(rank) <= static_cast<double>(width),
        "{} = {} is more than the tensor's width of {}", key, rank, width);
}

}  // namespace

const config::Names<ProjectorKind>& projector_kinds() {
  static const config::Names<ProjectorKind> names = {{"gaussian", ProjectorKind::gaussian},
                                                     {"sign", ProjectorKind::sign},
                                                     {"haar", ProjectorKind::haar},
                                                     {"principal", ProjectorKind::principal},
                                                     {"prac", ProjectorKind::prac}};
  return names;
}

const config::Names<Projector::Random>& random_kinds() {
  using Random = Projector::Random;
  static const config::Names<Random> names = {
      {"haar", Random::basis}, {"sign", Random::sign}, {"gaussian", Random::gaussian}};
  return names;
}

const config::Names<Decomposition>& decompositions() {
  static const config::Names<Decomposition> names = {{"subspace", Decomposition::subspace},
                                                     {"exact", Decomposition::exact}};
  return names;
}

int64_t rank_of(float rank, int64_t width) {
  const double value = decimal_double(rank);  // 0.3 of 10 is 3, whatever a float makes of 0.3
  const double columns = std::floor(value <= 1 ? value * static_cast<double>(width) + 1e-9 : value);
  return std::max<int64_t>(1, static_cast<int64_t>(columns));
}

void validate(const ProjectorConfig& p, const std::string& where, int64_t width) {
  check_rank(p.rank, where + ".rank", width);
  check(p.refresh >= 1 && p.random_refresh >= 0,
        "{}.refresh = {} must be at least 1 step and {}.random_refresh = {} at least 0", where, p.refresh, where,
        p.random_refresh);
  if (p.kind != ProjectorKind::prac) return;
  check_rank(p.random_rank, where + ".random_rank", width);
  const int64_t both = rank_of(p.rank, width) + rank_of(p.random_rank, width);
  check(both <= width, "{0}.rank = {1} and {0}.random_rank = {2} are {3} columns together, more than the width of {4}",
        where, p.rank, p.random_rank, both, width);
}

}  // namespace llmz::subspace
