#pragma once

#include <filesystem>
#include <string_view>

namespace llmz::io {

/// Ends the name of a checkpoint that is being replaced where the filesystem cannot swap two folders.
inline constexpr std::string_view kReplacedMark = ".replaced";

/// Removes a folder so that it is never seen half-removed under its own name: renamed aside first.
void remove_folder(const std::filesystem::path& folder);

/// Puts the folder `from` in the place of the folder `to`, and removes what was there. `may_swap` = false takes the way
/// of filesystems without renameat2(RENAME_EXCHANGE): `to` steps aside to "<to>.replaced" for the moment in between,
/// where `latest_checkpoint` still finds it and `clean_leftovers` puts it back.
void replace_folder(const std::filesystem::path& from, const std::filesystem::path& to, bool may_swap = true);

/// Error unless `name` can name a file in a folder: not empty, no '/', not "." or "..".
void check_plain_name(std::string_view name);

}  // namespace llmz::io
