#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include <spdlog/spdlog.h>

#include "llmz/core/error.h"
#include "llmz/io/checkpoint.h"
#include "src/io/checkpoint_folder.h"
#include "src/io/manifest.h"
#include "src/io/paths.h"

namespace llmz::io {
namespace fs = std::filesystem;
namespace {

bool is_there(const fs::path& path) {
  std::error_code error;
  return fs::exists(fs::symlink_status(path, error));
}

void remove_tree(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error);
  check(!error, "cannot remove '{}': {}", path.string(), error.message());
}

/// A folder without a manifest was not made by a finished CheckpointWriter: whatever it is, it is not ours to delete.
void set_aside_if_foreign(const fs::path& folder) {
  if (!is_there(folder) || is_there(folder / kManifestName)) return;
  std::error_code error;
  if (fs::is_directory(fs::symlink_status(folder, error)) && fs::is_empty(folder, error)) return;
  fs::path aside;
  for (int n = 1; aside.empty() || is_there(aside); ++n) aside = fmt::format("{}.unfinished-{}", folder.string(), n);
  spdlog::warn("'{}' is not a finished checkpoint; moved to '{}'", folder.string(), aside.string());
  rename_path(folder, aside);
}

}  // namespace

void check_plain_name(std::string_view name) {
  check(!name.empty() && name.find('/') == std::string_view::npos && name != "." && name != "..",
        "'{}' is not a plain file name", name);
}

void remove_folder(const fs::path& folder) {
  const fs::path aside = temporary_name(folder);
  remove_tree(aside);
  rename_path(folder, aside);
  sync_path(parent_of(folder));
  remove_tree(aside);
}

void replace_folder(const fs::path& from, const fs::path& to, bool may_swap) {
  const fs::path parent = parent_of(to);
  if (!is_there(to)) {
    rename_path(from, to);
    sync_path(parent);
    return;
  }
  if (may_swap && ::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) == 0) {
    sync_path(parent);
    remove_tree(from);  // the old one; a rest of it is a leftover like any other
    return;
  }
  const fs::path replaced = to.string() + std::string(kReplacedMark);
  if (is_there(replaced)) remove_folder(replaced);
  rename_path(to, replaced);
  rename_path(from, to);
  sync_path(parent);
  remove_folder(replaced);
}

CheckpointWriter::CheckpointWriter(const fs::path& final_path) {
  std::error_code error;
  final_ = fs::absolute(final_path, error).lexically_normal();
  if (!final_.has_filename()) final_ = final_.parent_path();
  aside_ = temporary_name(final_);
  make_folder(final_.parent_path());
  remove_tree(aside_);
  make_folder(aside_);
  lock_ = FolderLock::try_acquire(aside_);
}

CheckpointWriter::~CheckpointWriter() {
  if (done_) return;
  std::error_code error;
  fs::remove_all(aside_, error);
  if (error) spdlog::warn("cannot remove the unfinished checkpoint '{}': {}", aside_.string(), error.message());
}

fs::path CheckpointWriter::path(std::string_view name) const {
  check_plain_name(name);
  return aside_ / name;
}

void CheckpointWriter::add(std::string_view name) { add(name, digest_file(path(name))); }

void CheckpointWriter::add(std::string_view name, FileDigest digest) {
  check_plain_name(name);
  const auto same = [&](const CheckpointFile& f) { return f.name == name; };
  check(name != kManifestName && std::none_of(files_.begin(), files_.end(), same),
        "checkpoint '{}': the file '{}' was added twice or is the manifest's own", final_.string(), name);
  files_.push_back({std::string(name), digest});
}

void CheckpointWriter::commit(const nlohmann::json& extra) {
  check(!done_, "checkpoint '{}' was committed twice", final_.string());
  std::error_code error;
  size_t found = 0;
  for (fs::directory_iterator it(aside_, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    const auto same = [&](const CheckpointFile& f) { return f.name == name; };
    check(std::any_of(files_.begin(), files_.end(), same), "checkpoint '{}': the file '{}' was written but not added",
          final_.string(), name);
    sync_path(it->path());
    ++found;
  }
  check(!error, "cannot list '{}': {}", aside_.string(), error.message());
  check(found == files_.size(), "checkpoint '{}': {} files were added, {} are there", final_.string(), files_.size(),
        found);
  write_manifest(aside_, files_, extra);
  set_aside_if_foreign(final_);
  replace_folder(aside_, final_);
  done_ = true;
}

}  // namespace llmz::io
