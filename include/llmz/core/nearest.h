#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace llmz {

/// Levenshtein's distance: single letters put in, left out or exchanged.
size_t edit_distance(std::string_view a, std::string_view b);

/// The first name among `known` that is nearest to `name` by edit distance; empty where none is known.
std::string nearest_name(std::string_view name, const std::vector<std::string>& known);

}  // namespace llmz
