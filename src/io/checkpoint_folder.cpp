#include "src/io/checkpoint_folder.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <set>
#include <system_error>

#include <spdlog/spdlog.h>

#include "llmz/core/error.h"
#include "llmz/io/checkpoint.h"
#include "src/io/manifest.h"
#include "src/io/paths.h"

namespace llmz::io {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kStepPrefix = "step_";

bool ends_with_mark(const std::string& name) { return name.ends_with(kReplacedMark); }

/// Names in a folder, sorted; none when it does not exist.
std::vector<fs::path> list(const fs::path& folder) {
  std::vector<fs::path> paths;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    paths.push_back(it->path());
  }
  check(!error || error == std::errc::no_such_file_or_directory, "cannot list '{}': {}", folder.string(),
        error.message());
  std::sort(paths.begin(), paths.end());
  return paths;
}

bool is_folder(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(fs::symlink_status(path, error));
}

bool is_link(const fs::path& path) {
  std::error_code error;
  return fs::is_symlink(fs::symlink_status(path, error));
}

/// The checkpoint's own name where it stands aside as "<name>.replaced".
std::string own_name(const fs::path& path) {
  std::string name = path.filename().string();
  if (ends_with_mark(name)) name.resize(name.size() - kReplacedMark.size());
  return name;
}

/// A replacement was cut short: where nothing has taken its place, the old checkpoint comes back.
void settle_replaced(const fs::path& replaced) {
  const fs::path original = replaced.parent_path() / own_name(replaced);
  std::error_code error;
  if (fs::exists(fs::symlink_status(original, error))) {
    remove_folder(replaced);
  } else {
    rename_path(replaced, original);
    sync_path(replaced.parent_path());
  }
}

}  // namespace

CheckpointInfo open_checkpoint(const fs::path& path, bool verify_checksums) {
  std::error_code error;
  check(fs::exists(path, error), "there is no checkpoint '{}'", path.string());
  check(fs::is_directory(path, error), "'{}' is not a checkpoint: a checkpoint is a folder", path.string());
  check(fs::exists(path / kManifestName, error), "'{}' is not a finished checkpoint: it has no {}", path.string(),
        kManifestName);
  CheckpointInfo info;
  try {
    info = read_manifest(path);
  } catch (const Error& e) {
    fail("'{}' is not a finished checkpoint: {}", path.string(), e.what());
  }
  for (const CheckpointFile& f : info.files) {
    const fs::path file = path / f.name;
    const uintmax_t bytes = fs::file_size(file, error);
    check(!error, "checkpoint '{}' is damaged: cannot read its file '{}': {}", path.string(), f.name, error.message());
    check(bytes == f.digest.bytes, "checkpoint '{}' is damaged: its file '{}' has {} bytes, not {}", path.string(),
          f.name, bytes, f.digest.bytes);
    check(!verify_checksums || digest_file(file) == f.digest,
          "checkpoint '{}' is damaged: the checksum of its file '{}' is wrong", path.string(), f.name);
  }
  return info;
}

std::string checkpoint_name(int64_t step) {
  check(step >= 0, "a checkpoint's step cannot be {}", step);
  return fmt::format("{}{:08}", kStepPrefix, step);
}

std::optional<int64_t> checkpoint_step(std::string_view name) {
  if (!name.starts_with(kStepPrefix)) return std::nullopt;
  const std::string_view digits = name.substr(kStepPrefix.size());
  int64_t step = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), step);
  const bool canonical = error == std::errc() && step >= 0 && checkpoint_name(step) == name;
  return canonical ? std::optional(step) : std::nullopt;
}

namespace {

std::optional<fs::path> latest_in(const fs::path& checkpoints, bool verify_checksums) {
  struct Candidate {
    int64_t step;
    bool replaced;
    fs::path path;
  };
  std::vector<Candidate> candidates;
  for (const fs::path& path : list(checkpoints)) {
    const auto step = checkpoint_step(own_name(path));
    if (step && is_folder(path)) candidates.push_back({*step, ends_with_mark(path.string()), path});
  }
  std::sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
    return a.step != b.step ? a.step > b.step : a.replaced < b.replaced;
  });
  for (const Candidate& c : candidates) {
    try {
      open_checkpoint(c.path, verify_checksums);
      return c.path;
    } catch (const Error& e) {
      spdlog::warn("passed over: {}", e.what());
    }
  }
  return std::nullopt;
}

}  // namespace

std::optional<fs::path> latest_checkpoint(const fs::path& run_folder, bool verify_checksums) {
  return latest_in(run_folder / "checkpoints", verify_checksums);
}

void prune(const fs::path& checkpoints, std::span<const fs::path> keep) {
  std::set<std::string> kept;
  for (const fs::path& path : keep) kept.insert((path.has_filename() ? path : path.parent_path()).filename().string());
  const std::vector<fs::path> all = list(checkpoints);
  for (const fs::path& path : all) {
    std::error_code error;
    if (is_link(path)) kept.insert(fs::read_symlink(path, error).filename().string());
  }
  // Not asked for, but whatever the caller believes, the run must stay resumable.
  if (const auto latest = latest_in(checkpoints, false)) kept.insert(latest->filename().string());
  for (const fs::path& path : all) {
    const std::string name = path.filename().string();
    if (is_folder(path) && checkpoint_step(name) && !kept.contains(name)) remove_folder(path);
  }
}

void clean_leftovers(const fs::path& checkpoints) {
  for (const fs::path& path : list(checkpoints)) {
    const std::string name = path.filename().string();
    std::error_code error;
    if (name.find(kTemporaryMark) != std::string::npos) {
      if (is_folder(path) && !FolderLock::try_acquire(path)) continue;
      fs::remove_all(path, error);
      check(!error, "cannot remove the leftover '{}': {}", path.string(), error.message());
    } else if (ends_with_mark(name) && checkpoint_step(own_name(path))) {
      settle_replaced(path);
    }
  }
}

void set_link(const fs::path& checkpoints, std::string_view name, const fs::path& target) {
  check_plain_name(name);
  const fs::path link = checkpoints / name;
  const fs::path aside = temporary_name(link);
  const fs::path beside = (target.has_filename() ? target : target.parent_path()).filename();
  check(is_folder(checkpoints / beside), "cannot link '{}': there is no folder '{}' beside it", link.string(),
        beside.string());
  ::unlink(aside.c_str());
  check(::symlink(beside.c_str(), aside.c_str()) == 0, "cannot make the link '{}': {}", link.string(),
        error_text(errno));
  try {
    rename_path(aside, link);
  } catch (const Error&) {
    ::unlink(aside.c_str());
    throw;
  }
  sync_path(checkpoints);
}

}  // namespace llmz::io
