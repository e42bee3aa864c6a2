#pragma once

#include <string>
#include <vector>

#include "llmz/dist/world.h"
#include "src/dist/tcp_socket.h"

namespace llmz::dist {

/// The ranks of a run after they have found each other: a star around rank 0.
struct Meeting {
  std::vector<Socket> peers;          ///< rank 0: of rank r at r, its own absent; others: rank 0's alone
  std::vector<std::string> hosts;     ///< by rank
  std::vector<std::string> machines;  ///< by rank: the same text for ranks that share memory
};

/// Rank 0 waits for the others, the others look for rank 0. Error on all that have come when ranks do not fit together
/// or one is missing after options.timeout_seconds. A connection that is not llmz's, or has not the
/// LLMZ_RENDEZVOUS_TOKEN of rank 0's environment where that has one, is closed and not counted.
Meeting rendezvous(const WorldOptions& options);

}  // namespace llmz::dist
