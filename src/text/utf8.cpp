#include "src/text/utf8.h"

#include <cstdint>
#include <cstring>

namespace llmz::text {
namespace {

bool is_continuation(std::string_view text, size_t i) {
  return i < text.size() && (static_cast<unsigned char>(text[i]) & 0xc0u) == 0x80u;
}

}  // namespace

size_t utf8_character_bytes(std::string_view text, size_t i) {
  const auto first = static_cast<unsigned char>(text[i]);
  if (first < 0x80) return 1;
  if (first < 0xc2 || first > 0xf4 || !is_continuation(text, i + 1)) return 0;
  if (first < 0xe0) return 2;
  const auto second = static_cast<unsigned char>(text[i + 1]);
  if (!is_continuation(text, i + 2)) return 0;
  if (first < 0xf0) return (first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) ? 0 : 3;
  if (!is_continuation(text, i + 3)) return 0;
  return (first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f) ? 0 : 4;
}

size_t valid_utf8_until(std::string_view text, size_t i) {
  while (i < text.size()) {
    uint64_t eight;
    if (text.size() - i >= sizeof eight) {
      std::memcpy(&eight, text.data() + i, sizeof eight);
      if ((eight & 0x8080808080808080ull) == 0) {
        i += sizeof eight;
        continue;
      }
    }
    const size_t bytes = utf8_character_bytes(text, i);
    if (bytes == 0) break;
    i += bytes;
  }
  return i;
}

}  // namespace llmz::text
