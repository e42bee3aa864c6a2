#include "src/cli/ranks.h"

#include <cstdio>

#include "llmz/core/log.h"

namespace llmz::cli {

void add_rank_options(CLI::App& parser, dist::WorldOptions& options) {
  parser
      .add_option("--rendezvous", options.rendezvous,
                  "Without mpirun: where rank 0 listens for the others; needs --rank and --ranks (docs/distributed.md)")
      ->type_name("tcp:HOST:PORT");
  parser.add_option("--rank", options.rank, "With --rendezvous: this process, from 0");
  parser.add_option("--ranks", options.size, "With --rendezvous: the number of processes");
}

bool refuse_ranks(const std::string& command) {
  const dist::Launch launch = dist::launch_of_this_process();
  if (launch.size <= 1) return false;
  if (launch.rank == 0) {
    std::fprintf(stderr, "llmz: `llmz %s` runs as one process, not as %d ranks under mpirun: start it without mpirun\n",
                 command.c_str(), launch.size);
  }
  return true;
}

int run_as_rank(const dist::WorldOptions& options, const std::function<int(dist::World&)>& command) {
  const auto world = dist::make_world(options);
  if (!world->leads()) init_logging("error");
  try {
    return world->guard([&] { return command(*world); });
  } catch (const dist::SharedError& e) {
    if (world->leads()) std::fprintf(stderr, "llmz: %s\n", e.what());
    return 1;
  }
}

}  // namespace llmz::cli
