#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace llmz::io {

/// Between a name and a process id: what is still being written, or was when its writer died.
inline constexpr std::string_view kTemporaryMark = ".tmp-";

/// "<path>.tmp-<pid>", in the same folder and so on the same filesystem.
std::filesystem::path temporary_name(const std::filesystem::path& path);

/// The folder that lists `path`; "." for a bare name.
std::filesystem::path parent_of(const std::filesystem::path& path);

/// rename(2), Error naming both when it fails.
void rename_path(const std::filesystem::path& from, const std::filesystem::path& to);

/// What the system says of an errno value.
std::string error_text(int error);

}  // namespace llmz::io
