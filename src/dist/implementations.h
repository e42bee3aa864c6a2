#pragma once

#include "llmz/dist/world.h"

namespace llmz::dist {

/// Whether an MPI launcher started this process (mpirun, mpiexec, srun --mpi=...), by the variables they all set for
/// it.
bool started_by_mpi();
/// Starts MPI, once in a process. Error in a build without it.
std::unique_ptr<World> make_mpi_world();

/// options.rendezvous = "tcp:host:port".
std::unique_ptr<World> make_tcp_world(const WorldOptions& options);

/// Through NCCL, its unique id handed round by `world`, on the GPU of `memory`. Error in a build without NCCL.
std::unique_ptr<Communicator> make_nccl_communicator(World& world, Memory& memory);
bool nccl_is_built();

}  // namespace llmz::dist
