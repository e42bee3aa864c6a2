#pragma once

#include <string>
#include <vector>

#include "llmz/core/tensor.h"

namespace llmz::dist {

/// What is known of a rank when its device is chosen.
struct RankView {
  int machine = 0;                ///< World::machine
  std::string host;               ///< its name, for messages
  std::string asked;              ///< train.device as this rank has it: auto, cpu, cuda or cuda:k
  std::vector<std::string> gpus;  ///< identities of the GPUs that it sees, in its numbering
  std::string reason;             ///< why it sees none
};

/// The device of each rank. Knows nothing but its argument, so that every rank comes to the same answer or the same
/// Error.
std::vector<Device> place_ranks(const std::vector<RankView>& ranks);

}  // namespace llmz::dist
