#pragma once

#include <string>
#include <string_view>

namespace llmz::data {

/// The string under `field` of the JSON object in `line`. Throws Error, saying what is wrong but not where the line
/// comes from: malformed JSON, not an object, the member missing or not a string.
std::string json_text(std::string_view line, std::string_view field);

}  // namespace llmz::data
