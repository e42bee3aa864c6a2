#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace llmz::codec {

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

/// How numbers are packed into a few bits.
struct QuantConfig {
  int64_t bits = 0;                  ///< 8 or 4. 0: `quant` takes 8, a sketch's code stays unpacked
  int64_t group = 0;                 ///< elements that share a scale; 0 = a row
  int64_t rotate = 0;                ///< block size of a random Hadamard rotation beforehand; 0 = none
  std::string rounding = "nearest";  ///< nearest | stochastic
};

/// How one tensor role is kept between forward and backward. Made from JSON `activations.<role>`.
struct CodecConfig {
  std::string codec = "store";  ///< a name of the codec registry
  ProjectorConfig projector = {};
  QuantConfig quant = {};
};

/// Which form the weight gradients of the blocks' linear layers have. Made from JSON `weight_gradient`.
struct GradientConfig {
  /// auto: low-rank where the layer's input is kept as a sketch, dense elsewhere; dense; low_rank: the others too,
  /// through `projector` of the input that backward has.
  std::string form = "auto";
  ProjectorConfig projector = {};
};

std::vector<std::string> projector_kinds();
std::vector<std::string> random_kinds();

/// Columns that `rank` asks for of a tensor of `width` features. At least 1.
int64_t rank_of(float rank, int64_t width);

/// Throws Error naming the key, `where` + ".rank" and so on, whose value does not fit a tensor of `width` features.
void validate(const CodecConfig& config, const std::string& where, int64_t width);
void validate(const ProjectorConfig& config, const std::string& where, int64_t width);

}  // namespace llmz::codec
