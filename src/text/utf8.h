#pragma once

#include <cstddef>
#include <string_view>

namespace llmz::text {

/// Bytes of the character at text[i]; 0 where there is none (RFC 3629: no surrogates, nothing overlong, up to
/// U+10FFFF).
size_t utf8_character_bytes(std::string_view text, size_t i);
/// End of the stretch of valid UTF-8 that begins at `i`.
size_t valid_utf8_until(std::string_view text, size_t i);

}  // namespace llmz::text
