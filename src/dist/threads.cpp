#include <sched.h>

#include <algorithm>

#include "llmz/core/system.h"
#include "src/dist/implementations.h"

namespace llmz::dist {
namespace {

/// This machine and the processors this process may run on, as one text.
std::string processors(const World& world) {
  std::string text = fmt::format("{}:", world.machine(world.rank()));
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return text;
  for (int i = 0; i < CPU_SETSIZE; ++i) {
    if (CPU_ISSET(i, &set)) text += fmt::format(" {}", i);
  }
  return text;
}

}  // namespace

/// Ranks that mpirun has bound apart have different sets, and each has its own alone.
int fair_threads(World& world) {
  const std::string mine = processors(world);
  const std::vector<std::string> all = world.all_gather(mine);
  const auto sharers = static_cast<int>(std::count(all.begin(), all.end(), mine));
  return std::max(1, cpu_info().threads() / sharers);
}

}  // namespace llmz::dist
