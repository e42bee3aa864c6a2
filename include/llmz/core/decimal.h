#pragma once

#include <charconv>
#include <cstdlib>

namespace llmz {

/// The double whose shortest decimal form is `value`'s own (0.1f gives 0.1, not 0.100000001490116), for printing floats
/// in JSON. Converting it back to float gives `value`. Not a number and infinity come back as they are.
inline double decimal_double(float value) {
  char text[32] = {};
  std::to_chars(text, text + sizeof(text) - 1, value);
  const double result = std::strtod(text, nullptr);
  return static_cast<float>(result) == value ? result : static_cast<double>(value);
}

}  // namespace llmz
