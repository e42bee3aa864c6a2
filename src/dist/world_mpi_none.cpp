#include "src/dist/implementations.h"

namespace llmz::dist {

std::string mpi_library() { return ""; }

std::unique_ptr<World> make_mpi_world() {
  fail(
      "this process was started by an MPI launcher, and this build of llmz has no MPI (`llmz doctor` says why): "
      "install libopenmpi-dev and configure again, or start one process without mpirun");
}

}  // namespace llmz::dist
