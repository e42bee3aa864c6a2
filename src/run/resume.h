#pragma once

#include <string>
#include <vector>

#include "llmz/run/config.h"

namespace llmz::run {

/// What differs between the configuration of a checkpoint and the one it is to go on with, as "key: old -> new". Throws
/// Error for the keys that decide which batches a step sees or what its tensors are (the model, the optimizer's kind,
/// train.seed, train.sequence, train.global_batch): a run that changes them is another run.
std::vector<std::string> changes_since(const RunConfig& saved, const RunConfig& now);

}  // namespace llmz::run
