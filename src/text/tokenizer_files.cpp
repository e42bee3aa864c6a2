#include "src/text/tokenizer_files.h"

#include <charconv>
#include <nlohmann/json.hpp>
#include <system_error>

#include "llmz/core/error.h"
#include "llmz/io/files.h"

namespace llmz::text {

void Hasher::add(std::string_view part) {
  for (int shift = 0; shift < 64; shift += 8) add_byte(static_cast<uint8_t>(uint64_t{part.size()} >> shift));
  for (const char c : part) add_byte(static_cast<uint8_t>(c));
}

std::optional<TokenizerManifest> read_tokenizer_manifest(const std::filesystem::path& folder) {
  const auto path = folder / TokenizerManifest::kFileName;
  if (!std::filesystem::exists(path)) return std::nullopt;
  const auto json = nlohmann::json::parse(io::read_text(path), nullptr, false);
  const auto text = [&](const char* key) {
    return json.is_object() && json.contains(key) && json[key].is_string() ? json[key].get<std::string>() : "";
  };
  TokenizerManifest manifest{text("kind"), 0};
  const std::string hex = text("hash");
  const auto [end, code] = std::from_chars(hex.data(), hex.data() + hex.size(), manifest.hash, 16);
  const bool hash_read = code == std::errc() && end == hex.data() + hex.size() && hex.size() == 16;
  check(!manifest.kind.empty() && hash_read,
        "{}: is not a tokenizer manifest ({{\"hash\": 16 hexadecimal digits, \"kind\": a word}}); save the tokenizer "
        "again",
        path.string());
  return manifest;
}

void make_tokenizer_folder(const std::filesystem::path& folder) {
  std::error_code code;
  std::filesystem::create_directories(folder, code);
  check(!code && std::filesystem::is_directory(folder), "{}: cannot be made a folder: {}", folder.string(),
        code ? code.message() : "a file of this name exists");
  // The folder may hold another tokenizer: until the new manifest is there it is no tokenizer of ours.
  std::filesystem::remove(folder / TokenizerManifest::kFileName, code);
}

void write_tokenizer_manifest(const std::filesystem::path& folder, const Tokenizer& tokenizer) {
  const nlohmann::json json = {{"kind", tokenizer.kind()}, {"hash", fmt::format("{:016x}", tokenizer.hash())}};
  io::write_text(folder / TokenizerManifest::kFileName, json.dump(2) + "\n");
}

std::string printable(std::string_view text, bool escape_high) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c == '\r') {
      out += "\\r";
    } else if (byte < 0x20 || byte == 0x7f || (escape_high && byte >= 0x80)) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace llmz::text
