#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "llmz/config/fields.h"
#include "llmz/core/projector.h"

namespace llmz::subspace {

/// Where a principal part comes from.
enum class Decomposition : uint8_t { subspace, exact };
const config::Names<Decomposition>& decompositions();

/// What a projector is made of: one random part, a principal part, or (`prac`) both.
enum class ProjectorKind : uint8_t { gaussian, sign, haar, principal, prac };
const config::Names<ProjectorKind>& projector_kinds();
/// What the random part of `prac` may be.
const config::Names<Projector::Random>& random_kinds();

/// The projector of a sketch and how often it is renewed. JSON keys of `activations.<role>` and of `weight_gradient`.
struct ProjectorConfig {
  ProjectorKind kind = ProjectorKind::gaussian;
  /// Up to 1 a fraction of the tensor's width (rounded down), above 1 a number of columns. Of the principal part for
  /// `principal` and `prac`.
  float rank = 0.25f;
  float random_rank = 0.25f;                            ///< `prac`: of its random part
  Projector::Random random = Projector::Random::basis;  ///< `prac`: its random part
  int64_t refresh = 50;                                 ///< steps between new projectors
  int64_t random_refresh = 0;  ///< `prac`: of the random part alone; 0 = with the principal part
  /// Of a principal part: warm-started subspace iteration, or exact.
  Decomposition decomposition = Decomposition::subspace;
  uint64_t seed = 0;  ///< 0 = made from the run's
};

/// Columns that `rank` asks for of a tensor of `width` features. At least 1.
int64_t rank_of(float rank, int64_t width);

/// Throws Error naming the key, `where` + ".rank" and so on, whose value does not fit a tensor of `width` features.
void validate(const ProjectorConfig& config, const std::string& where, int64_t width);

}  // namespace llmz::subspace
