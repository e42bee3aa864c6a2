// Elements of a list of components.
#pragma once

#include "llmz/config/fields.h"
#include "llmz/config/text.h"

namespace llmz::config {

/// The element `value`, which stands at `path` ("optimizer.rules[1]") in `text`.
Choice read_choice(const ListType& type, const Text& text, const std::string& path, const Json& value);

/// Every key of the element, defaults included.
Json choice_to_json(const ListType& type, Choice choice);

}  // namespace llmz::config
