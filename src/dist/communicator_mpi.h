#pragma once

#include "llmz/dist/world.h"
#include "src/dist/mpi_thread.h"

namespace llmz::dist {

/// Collectives between CPUs, by the MPI library's own. `start` hands a bucket to the MPI thread, which works on it
/// beside the caller. Small tensors of a bucket travel together.
std::unique_ptr<Communicator> make_mpi_communicator(std::shared_ptr<MpiThread> thread, int rank, int size);

}  // namespace llmz::dist
