#pragma once

#include <filesystem>
#include <span>

#include <nlohmann/json.hpp>

#include "llmz/io/checkpoint.h"

namespace llmz::io {

/// Writes manifest.json into `folder` and syncs both. The manifest carries a checksum of itself.
void write_manifest(const std::filesystem::path& folder, std::span<const CheckpointFile> files,
                    const nlohmann::json& extra);

/// Reads it back. Throws Error when it is absent, damaged, or of a version this program does not know.
CheckpointInfo read_manifest(const std::filesystem::path& folder);

}  // namespace llmz::io
