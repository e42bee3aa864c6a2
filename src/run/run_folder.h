#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "llmz/io/files.h"

namespace llmz::run {

/// output.path: config.json, metrics.jsonl and checkpoints/ of one run (docs/checkpoints.md). One process at a time.
class RunFolder {
 public:
  /// Makes or takes over the folder. Throws Error when it holds a run that neither `resume` nor `overwrite` asks for,
  /// and when another process is training in it.
  RunFolder(std::filesystem::path path, bool resume, bool overwrite);

  /// The newest checkpoint whose checksums hold; older ones stand in for a damaged one, with a warning. Nothing when
  /// there is none at all; Error when there are some and all are damaged.
  std::optional<std::filesystem::path> newest_checkpoint() const;
  std::filesystem::path checkpoint(int64_t step) const;
  std::filesystem::path metrics_file() const { return path_ / "metrics.jsonl"; }
  const std::filesystem::path& path() const { return path_; }
  void write_config(const std::string& json) const;

  /// Points `last` or `best` at the checkpoint of `step`. A best one that is gone (output.save_best was off) stays
  /// unmarked.
  void mark_last(int64_t step) const;
  void mark_best(int64_t step) const;
  /// Removes the checkpoints that are neither last, nor best, nor of a multiple of `keep_every` (0 = none).
  void prune(int64_t keep_every) const;

 private:
  std::filesystem::path checkpoints() const { return path_ / "checkpoints"; }
  std::filesystem::path path_;
  std::optional<io::FolderLock> lock_;
};

}  // namespace llmz::run
