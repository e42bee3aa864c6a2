#include "src/dist/implementations.h"

namespace llmz::dist {

bool nccl_is_built() { return false; }
std::string nccl_library() { return ""; }

std::unique_ptr<Communicator> make_nccl_communicator(World& world, Memory&) {
  fail(
      "{} ranks on GPUs need NCCL, which this build lacks (`llmz doctor` says why): install libnccl-dev and configure "
      "again, or train on the CPU with train.device = \"cpu\"",
      world.size());
}

}  // namespace llmz::dist
