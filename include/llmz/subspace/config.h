#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "llmz/config/fields.h"

namespace llmz::subspace {

/// Where a principal part comes from.
enum class Decomposition : uint8_t { subspace, exact };
const config::Names<Decomposition>& decompositions();

/// The projector of a sketch and how often it is renewed. JSON keys of `activations.<role>` and of `weight_gradient`.
struct ProjectorConfig {
  std::string kind = "gaussian";  ///< gaussian | sign | haar | principal | prac
  /// Up to 1 a fraction of the tensor's width (rounded down), above 1 a number of columns. Of the principal part for
  /// `principal` and `prac`.
  float rank = 0.25f;
  float random_rank = 0.25f;               ///< `prac`: of its random part
  std::string random = "haar";             ///< `prac`: its random part: haar | sign | gaussian
  int64_t refresh = 50;                    ///< steps between new projectors
  int64_t random_refresh = 0;              ///< `prac`: of the random part alone; 0 = with the principal part
  std::string decomposition = "subspace";  ///< principal part: warm-started subspace iteration, or `exact`
  uint64_t seed = 0;                       ///< 0 = made from the run's
};

std::vector<std::string> projector_kinds();
std::vector<std::string> random_kinds();

/// Columns that `rank` asks for of a tensor of `width` features. At least 1.
int64_t rank_of(float rank, int64_t width);

/// Throws Error naming the key, `where` + ".rank" and so on, whose value does not fit a tensor of `width` features.
void validate(const ProjectorConfig& config, const std::string& where, int64_t width);

}  // namespace llmz::subspace
