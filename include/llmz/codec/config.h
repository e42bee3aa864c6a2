#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "llmz/config/fields.h"
#include "llmz/subspace/config.h"

namespace llmz::codec {

/// To the nearest level, or at random without bias.
enum class Rounding : uint8_t { nearest, stochastic };
const config::Names<Rounding>& roundings();

/// See GradientConfig.
enum class GradientForm : uint8_t { automatic, dense, low_rank };
const config::Names<GradientForm>& gradient_forms();

/// How numbers are packed into a few bits.
struct QuantConfig {
  int64_t bits = 0;    ///< 8 or 4. 0: `quant` takes 8, a sketch's code stays unpacked
  int64_t group = 0;   ///< elements that share a scale; 0 = a row
  int64_t rotate = 0;  ///< block size of a random Hadamard rotation beforehand; 0 = none
  Rounding rounding = Rounding::nearest;
};

/// How one tensor role is kept between forward and backward. Made from JSON `activations.<role>`.
struct CodecConfig {
  std::string codec = "store";  ///< a name of the codec registry
  subspace::ProjectorConfig projector = {};
  QuantConfig quant = {};
  config::Bag own = {};  ///< settings of codecs that take others than these
};

/// Which form the weight gradients of the blocks' linear layers have. Made from JSON `weight_gradient`.
struct GradientConfig {
  /// auto: low-rank where the layer's input is kept as a sketch, dense elsewhere; dense; low_rank: the others too,
  /// through `projector` of the input that backward has.
  GradientForm form = GradientForm::automatic;
  subspace::ProjectorConfig projector = {};
};

/// Throws Error naming the key, `where` + ".rank" and so on, whose value does not fit a tensor of `width` features.
void validate(const CodecConfig& config, const std::string& where, int64_t width);
/// `needed`: whether numbers are packed in any case, also where `bits` is 0.
void validate(const QuantConfig& config, const std::string& where, bool needed);

}  // namespace llmz::codec
