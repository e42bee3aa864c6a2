// Single values between JSON and the members that keys stand for.
#pragma once

#include "llmz/config/fields.h"
#include "llmz/config/schema.h"
#include "llmz/config/text.h"

namespace llmz::config {

/// Writes `value`, which stands at `path` in `text`, into the member of `object`. Error for a wrong type or a value
/// that the field does not allow.
void assign(const Field& field, void* object, const Text& text, const std::string& path, const Json& value);

/// The member of `root` that a dotted path leads to, made on the way.
Json& member(Json& root, const std::string& path);

/// The name among `known` that is nearest to `name` by edit distance.
std::string nearest(const std::string& name, const std::vector<std::string>& known);
/// "unknown key "a.b"; did you mean "a.c"? Keys of "a": c, d" with the siblings where there are any.
std::string unknown_among(const std::string& path, const std::vector<std::string>& known,
                          const std::vector<std::string>& siblings);

}  // namespace llmz::config
