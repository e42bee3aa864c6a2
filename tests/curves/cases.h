#pragma once

#include <string>
#include <vector>

#include "ranks/methods.h"

namespace llmz::testing {

/// A short training run of a tiny model in fp32 whose losses are kept.
struct CurveCase {
  std::string name;  ///< "llama/prac"
  Settings settings;
  bool on_ranks = false;  ///< on four ranks too
};

/// Every preset on both architectures, and what presets leave out, with refreshes inside the run.
std::vector<CurveCase> curve_cases();

/// Methods of which a checkpoint made by an older llmz is kept.
std::vector<CurveCase> old_checkpoint_cases();

/// What all runs have in common.
Settings common_settings();

constexpr int kCurveSteps = 12;
constexpr int kSavedStep = 6;  ///< from which runs are taken up again

}  // namespace llmz::testing
