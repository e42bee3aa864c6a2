#pragma once

#include <string>
#include <vector>

namespace llmz {

/// What the build found of something that it uses, or may use.
struct BuildComponent {
  std::string name;     // "oneDNN", "CUDA"
  bool on = false;      // built in
  std::string version;  // as the build saw it; "-" when off or not told
  std::string detail;   // where it was found, or why it is off
};

/// What this binary was made from; compiled in, so that a run or a checkpoint can say which code made it.
struct BuildInfo {
  std::string version;     // "0.1.0"
  std::string revision;    // git commit, "-dirty" when files differed from it; "unknown" outside a git checkout
  std::string compiler;    // "GNU 12.2.0"
  std::string build_type;  // "Release"
  std::string flags;       // as given to the compiler
  std::vector<BuildComponent> components;  // the rows of the table that configuring prints
};

BuildInfo build_info();

/// "llmz 0.1.0 (4d66809c1a2b, GNU 12.2.0, Release)"
std::string version_line();

}  // namespace llmz
