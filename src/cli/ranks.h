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

}  // namespace llmz::cli
