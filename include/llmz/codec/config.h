#pragma once

#include <string>

namespace llmz::codec {

/// How one tensor role is kept between forward and backward. Made from JSON `activations.<role>`.
struct CodecConfig {
  std::string codec = "store";  ///< a name of the codec registry: store | recompute
};

}  // namespace llmz::codec
