#include "src/run/run_folder.h"

#include <vector>

#include "llmz/core/error.h"
#include "llmz/io/checkpoint.h"

namespace llmz::run {

namespace fs = std::filesystem;

RunFolder::RunFolder(fs::path path, bool resume, bool overwrite) : path_(std::move(path)) {
  io::make_folder(checkpoints());
  lock_ = io::FolderLock::try_acquire(path_);
  check(lock_.has_value(), "another process is training in {}: choose another output.path or wait for it",
        path_.string());
  io::clean_leftovers(checkpoints());
  if (overwrite) {
    fs::remove_all(checkpoints());
    fs::remove(metrics_file());
    io::make_folder(checkpoints());
  }
  const bool occupied = fs::exists(metrics_file()) || newest_checkpoint().has_value();
  check(resume || !occupied,
        "output.path {} already holds a run: add --resume to go on, --overwrite to start again, or choose another "
        "output.path",
        path_.string());
}

std::optional<fs::path> RunFolder::newest_checkpoint() const {
  if (auto newest = io::latest_checkpoint(path_, /*verify_checksums=*/true)) return newest;
  for (const auto& entry : fs::directory_iterator(checkpoints())) {
    check(!io::checkpoint_step(entry.path().filename().string()),
          "none of the checkpoints in {} is whole, so there is nothing to go on from: restore one from a copy, or add "
          "--overwrite to start again",
          checkpoints().string());
  }
  return std::nullopt;
}

fs::path RunFolder::checkpoint(int64_t step) const { return checkpoints() / io::checkpoint_name(step); }

void RunFolder::write_config(const std::string& json) const { io::write_text(path_ / "config.json", json + "\n"); }

void RunFolder::mark_last(int64_t step) const { io::set_link(checkpoints(), "last", checkpoint(step)); }

void RunFolder::mark_best(int64_t step) const {
  if (fs::exists(checkpoint(step))) io::set_link(checkpoints(), "best", checkpoint(step));
}

void RunFolder::prune(int64_t keep_every) const {
  std::vector<fs::path> keep;
  for (const auto& entry : fs::directory_iterator(checkpoints())) {
    const auto at = io::checkpoint_step(entry.path().filename().string());
    if (at && keep_every > 0 && *at % keep_every == 0) keep.push_back(entry.path());
  }
  io::prune(checkpoints(), keep);
}

}  // namespace llmz::run
