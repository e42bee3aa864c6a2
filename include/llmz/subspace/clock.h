#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace llmz::subspace {

/// Where a run stands, as projectors and codecs need to know it: their random numbers and refreshes are functions of it
/// alone, so a resumed run makes the same ones.
struct Clock {
  uint64_t seed = 1;
  int64_t step = 0;          ///< optimizer steps done before this one
  int64_t micro_step = 0;    ///< forward/backward passes done inside this step
  std::vector<int64_t> due;  ///< refresh periods that end at this step
  bool probing = false;      ///< this pass also measures the codes' errors
  int rank = 0, ranks = 1;   ///< the processes that share the work of a refresh

  bool is_due(int64_t period) const { return std::find(due.begin(), due.end(), period) != due.end(); }
  /// The rank that makes the stored bases of this tensor (StreamId::number) for all. Any tensor may fall to any rank:
  /// layers of a block follow each other, and a plain remainder would give all the wide ones to the same.
  int owner_of(uint32_t number) const {
    return static_cast<int>((number * 2654435761u >> 16) % static_cast<uint32_t>(ranks));
  }
};

}  // namespace llmz::subspace
