#pragma once

#include <map>
#include <string>
#include <vector>

#include "cli/process.h"
#include "cli/tiny_run.h"
#include "ranks/curve.h"

namespace llmz::testing {

/// Whether mpirun is Open MPI's: some tests speak to it in its own words.
bool is_open_mpi();

/// Process options that start mpirun instead of llmz.
ProcessOptions mpirun();

/// What follows "mpirun": `ranks` of `command`; `flags` of mpirun's own go before it.
std::vector<std::string> on_ranks(int ranks, const std::vector<std::string>& command,
                                  const std::vector<std::string>& flags = {});
/// The same of llmz with `arguments`.
std::vector<std::string> llmz_on_ranks(int ranks, const std::vector<std::string>& arguments,
                                       const std::vector<std::string>& flags = {});

/// Runs llmz to its end: on one rank by itself, on several through mpirun.
Outcome run_on(int ranks, const TinyRun& place, const std::vector<std::string>& arguments,
               const std::vector<std::string>& flags = {});

/// Process numbers of the ranks that this (Open MPI's) mpirun has started here, by rank; of those that live.
std::map<int, pid_t> rank_processes(const Process& mpirun);

/// The lines of standard error that are llmz's errors, without "llmz: ".
std::vector<std::string> llmz_errors(const Outcome& outcome);

}  // namespace llmz::testing
