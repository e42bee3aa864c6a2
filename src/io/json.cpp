#include <algorithm>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "llmz/core/error.h"
#include "llmz/io/files.h"

namespace llmz::io {
namespace {

/// nlohmann's message without its error code and position: "unexpected '}'; expected string literal".
std::string reason(const nlohmann::json::exception& e) {
  std::string text = e.what();
  if (const size_t at = text.find("] "); at != std::string::npos) text.erase(0, at + 2);
  if (const size_t at = text.find(" - "); at != std::string::npos) text.erase(0, at + 3);
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20) c = '?';
  }
  return text;
}

/// "line:column", both from 1, of the byte at `offset`.
std::string position(std::string_view text, size_t offset) {
  const std::string_view before = text.substr(0, std::min(offset, text.size()));
  const auto line = std::count(before.begin(), before.end(), '\n') + 1;
  const size_t newline = before.rfind('\n');
  const size_t column = before.size() - (newline == std::string_view::npos ? 0 : newline + 1) + 1;
  return fmt::format("{}:{}", line, column);
}

/// Refuses a key that stands twice in one object: the parser would silently keep the last.
class DuplicateKeys {
 public:
  explicit DuplicateKeys(std::string_view source) : source_(source) {}

  bool operator()(int /*depth*/, nlohmann::json::parse_event_t event, nlohmann::json& parsed) {
    if (event == nlohmann::json::parse_event_t::object_start) {
      open_.emplace_back();
    } else if (event == nlohmann::json::parse_event_t::object_end) {
      open_.pop_back();
    } else if (event == nlohmann::json::parse_event_t::key) {
      Scope& scope = open_.back();
      scope.key = parsed.get<std::string>();
      check(scope.keys.insert(scope.key).second, "{}: the key '{}' stands there twice", source_, path());
    }
    return true;
  }

 private:
  struct Scope {
    std::set<std::string> keys;
    std::string key;
  };
  std::string path() const {
    std::string joined;
    for (const Scope& scope : open_) joined += (joined.empty() ? "" : ".") + scope.key;
    return joined;
  }
  std::string_view source_;
  std::vector<Scope> open_;
};

}  // namespace

nlohmann::json parse_json(std::string_view text, std::string_view source) {
  DuplicateKeys duplicates(source);
  try {
    return nlohmann::json::parse(text.begin(), text.end(), std::ref(duplicates));
  } catch (const nlohmann::json::parse_error& e) {
    fail("{}:{}: {}", source, position(text, e.byte > 0 ? e.byte - 1 : 0), reason(e));
  } catch (const nlohmann::json::exception& e) {
    fail("{}: {}", source, reason(e));
  }
}

nlohmann::json read_json(const std::filesystem::path& path) { return parse_json(read_text(path), path.string()); }

void write_json(const std::filesystem::path& path, const nlohmann::json& value) {
  std::string text;
  try {
    text = value.dump(2) + "\n";
  } catch (const nlohmann::json::exception& e) {
    fail("cannot write '{}': {}", path.string(), reason(e));
  }
  write_text(path, text);
}

}  // namespace llmz::io
