#include "src/io/manifest.h"

#include <set>

#include "llmz/core/error.h"
#include "src/io/checkpoint_folder.h"

namespace llmz::io {
namespace fs = std::filesystem;
namespace {

constexpr const char* kFormat = "llmz checkpoint";

/// Of the manifest without its own "crc32". Keys are sorted in a json object, so the text is always the same.
uint32_t checksum(const nlohmann::json& manifest) {
  nlohmann::json rest = manifest;
  rest.erase("crc32");
  const std::string text = rest.dump();
  Crc32 crc;
  crc.update(text.data(), text.size());
  return crc.value();
}

bool has_count(const nlohmann::json& object, const char* key) {
  return object.is_object() && object.contains(key) && object[key].is_number_unsigned();
}

bool is_file_row(const nlohmann::json& row) {
  return has_count(row, "bytes") && has_count(row, "crc32") && row["crc32"].get<uint64_t>() <= UINT32_MAX &&
         row.contains("name") && row["name"].is_string();
}

}  // namespace

void write_manifest(const fs::path& folder, std::span<const CheckpointFile> files, const nlohmann::json& extra) {
  check(extra.is_object(), "checkpoint '{}': what goes into its manifest must be a JSON object", folder.string());
  nlohmann::json manifest = {{"format", kFormat}, {"version", kManifestVersion}, {"extra", extra}};
  manifest["files"] = nlohmann::json::array();
  for (const CheckpointFile& f : files) {
    manifest["files"].push_back({{"name", f.name}, {"bytes", f.digest.bytes}, {"crc32", f.digest.crc32}});
  }
  manifest["crc32"] = checksum(manifest);
  write_json(folder / kManifestName, manifest);
}

CheckpointInfo read_manifest(const fs::path& folder) {
  const nlohmann::json manifest = read_json(folder / kManifestName);
  check(manifest.is_object() && manifest.value("format", nlohmann::json()) == kFormat && has_count(manifest, "version"),
        "its manifest is not one of llmz");
  check(manifest["version"].get<uint64_t>() == kManifestVersion, "its format version is {}, this program reads {}",
        manifest["version"].get<uint64_t>(), kManifestVersion);
  check(has_count(manifest, "crc32") && manifest["crc32"].get<uint64_t>() == checksum(manifest) &&
            manifest.contains("files") && manifest["files"].is_array() && manifest.contains("extra") &&
            manifest["extra"].is_object(),
        "its manifest is damaged");

  CheckpointInfo info{folder, {}, manifest["extra"]};
  std::set<std::string> names;
  for (const nlohmann::json& row : manifest["files"]) {
    check(is_file_row(row) && names.insert(row["name"].get<std::string>()).second, "its manifest is damaged");
    const auto name = row["name"].get<std::string>();
    check_plain_name(name);
    info.files.push_back({name, {row["bytes"].get<uint64_t>(), row["crc32"].get<uint32_t>()}});
  }
  return info;
}

}  // namespace llmz::io
