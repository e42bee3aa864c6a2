#pragma once

#include <cstdint>

namespace llmz::engine {

/// JSON `distributed`: how several processes share a run.
struct DistributedConfig {
  /// 0: every rank has all of the optimizer's state. 1: each has an equal part of it, by rows (Rajbhandari et al. 2020,
  /// ZeRO-1).
  int64_t zero_stage = 0;
  bool overlap = true;     ///< gradients are on their way while the rest of backward runs
  int64_t bucket_mb = 25;  ///< 10⁶ bytes of gradients that set out together
};

/// This process among those of a run.
struct RankPlace {
  int rank = 0, size = 1;
};

}  // namespace llmz::engine
