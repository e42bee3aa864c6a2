#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "io/scratch.h"
#include "process.h"

namespace llmz::testing {

namespace fs = std::filesystem;

/// Sentences of a few words in an English order, always the same ones.
std::string little_text(int sentences);

/// A scratch folder with text.txt, data prepared from it with the bytes tokenizer in data/, and tiny.json: a model of
/// a few thousand parameters that trains into run/.
class TinyRun {
 public:
  explicit TinyRun(bool in_memory = false);

  const fs::path& folder() const { return scratch_.path(); }
  fs::path operator/(const std::string& name) const { return scratch_ / name; }
  Outcome llmz(const std::vector<std::string>& arguments, const ProcessOptions& options = {}) const {
    return run_llmz(folder(), arguments, options);
  }

 private:
  ScratchFolder scratch_;
};

/// {"train", "tiny.json", "--set", each setting..., extra...}
std::vector<std::string> train_arguments(const std::vector<std::string>& settings,
                                         const std::vector<std::string>& extra = {});

/// Every file below `folder` with its content; links as "-> target".
std::map<std::string, std::string> contents_of(const fs::path& folder);

/// What must repeat bit for bit of a run's metrics.jsonl: for each line its step, losses, rate and gradient norm.
std::vector<std::string> repeatable_metrics(const fs::path& metrics_file);

}  // namespace llmz::testing
