#pragma once

#include <string>
#include <vector>

#include "llmz/dist/world.h"
#include "llmz/report/doctor.h"

namespace llmz::report {

/// Where the ranks of a run stand, as `train` with train.device = "auto" would place them.
struct RankMap {
  std::vector<std::string> hosts, devices;  ///< by rank; what a rank sees, where it cannot be placed
  std::string problem;                      ///< why `train` would not start, in its words; empty: it would
  Device device = {};                       ///< of this rank
  int threads = 1;                          ///< of this rank, where nobody says another number
};

/// Collective.
RankMap map_ranks(dist::World& world);

/// A sum over all ranks through what would sum their gradients, with its time. Collective; throws Error as `train`
/// would where they cannot be connected. With the map's problem: that, and nothing is tried.
Finding try_connection(dist::World& world, const RankMap& map);

/// A row a rank.
std::string rank_table(const RankMap& map);

}  // namespace llmz::report
