#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "llmz/io/files.h"

namespace llmz::io {

/// How a folder of files becomes a checkpoint, whatever is in them (docs/checkpoints.md has the whole protocol):
///
///   write to "<name>.tmp-<pid>" → manifest.json last → fsync → rename to "<name>" → fsync of the parent
///
/// A folder is a checkpoint when its manifest is sound and agrees with its files; that a folder exists says nothing.
/// A process may be killed between any two system calls: what was a checkpoint before stays one.

constexpr std::string_view kManifestName = "manifest.json";
constexpr int kManifestVersion = 1;

struct CheckpointFile {
  std::string name;  ///< without a folder
  FileDigest digest;
};

/// A finished checkpoint, as its manifest describes it.
struct CheckpointInfo {
  std::filesystem::path folder;
  std::vector<CheckpointFile> files;
  nlohmann::json extra;  ///< what was given to `CheckpointWriter::commit`
};

/// Writes one checkpoint. Dropped without `commit` (an Error such as a full disk, an interrupt) it removes what it
/// wrote.
class CheckpointWriter {
 public:
  /// Makes "<final>.tmp-<pid>" and the missing folders above it.
  explicit CheckpointWriter(const std::filesystem::path& final_path);
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  /// Where to write the file `name`; a plain name, no folders.
  std::filesystem::path path(std::string_view name) const;
  /// Lists a file that was written to `path(name)` in the manifest; the first form reads it, the second is told.
  void add(std::string_view name);
  void add(std::string_view name, FileDigest digest);
  /// Makes it a checkpoint under its final name, in place of one that was there. `extra` is an object of any content
  /// (step, ...). A folder there that is no checkpoint is moved aside, not deleted. Error when a file in the folder
  /// was not added.
  void commit(const nlohmann::json& extra = nlohmann::json::object());

 private:
  std::filesystem::path final_, aside_;
  std::optional<FolderLock> lock_;
  std::vector<CheckpointFile> files_;
  bool done_ = false;
};

/// Reads the manifest and compares the files' sizes with it, and their checksums if asked. `path` may be a link.
/// Throws Error: "not a finished checkpoint" without a sound manifest, else the file that is wrong.
CheckpointInfo open_checkpoint(const std::filesystem::path& path, bool verify_checksums);

/// "step_00001234", and back; nothing for another name.
std::string checkpoint_name(int64_t step);
std::optional<int64_t> checkpoint_step(std::string_view name);

/// The finished checkpoint of the highest step in `<run>/checkpoints`. Broken ones are passed over with a warning in
/// the log. Nothing when there is none; changes nothing on the disk.
std::optional<std::filesystem::path> latest_checkpoint(const std::filesystem::path& run_folder,
                                                       bool verify_checksums = false);

/// Removes every step_* folder except those in `keep`, those that links point to, and the latest finished one.
void prune(const std::filesystem::path& checkpoints, std::span<const std::filesystem::path> keep);

/// Removes what writers that died left behind, and puts back a checkpoint whose replacement was cut short. Folders that
/// a living process is writing stay. For the one process that writes into the run, before it does.
void clean_leftovers(const std::filesystem::path& checkpoints);

/// Makes `<checkpoints>/<name>` a link to `target`, a folder beside it; an older link is replaced at once.
void set_link(const std::filesystem::path& checkpoints, std::string_view name, const std::filesystem::path& target);

}  // namespace llmz::io
