#pragma once

#include <functional>
#include <memory>

#include "llmz/dist/world.h"
#include "src/cli/commands.h"

namespace llmz::cli {

/// --rendezvous, --rank and --ranks, for commands that several processes run together.
void add_rank_options(CLI::App& parser, dist::WorldOptions& options);

/// Whether mpirun started this process as one of several, which `command` ("generate") is not for. Rank 0 says so.
bool refuse_ranks(const std::string& command);

/// Runs `command` as one process or as one rank of many. Of what all ranks know, an error too, rank 0 alone speaks; a
/// rank that fails alone says so and ends the others. Returns the exit code.
int run_as_rank(const dist::WorldOptions& options, const std::function<int(dist::World&)>& command);

/// A subcommand that several processes may run together: `body(options, world)`, with `options.world`.
template <class Options>
Command rank_command(CLI::App* parser, std::shared_ptr<Options> options,
                     int (*body)(const Options& options, dist::World& world)) {
  return {parser,
          [=] { return run_as_rank(options->world, [&](dist::World& world) { return body(*options, world); }); },
          /*takes_ranks=*/true};
}

}  // namespace llmz::cli
