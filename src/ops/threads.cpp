#include "llmz/ops/threads.h"

#include <omp.h>

#include "kernels/cpu/isa.h"
#include "llmz/core/error.h"

namespace llmz::ops {

void set_threads(int threads) {
  check(threads >= 1, "the number of threads must be at least 1, not {}", threads);
  omp_set_num_threads(threads);
}

int threads() { return omp_get_max_threads(); }

std::string_view instruction_set() {
  cpu::check_environment_isa();
  return cpu::isa_name(cpu::isa());
}

}  // namespace llmz::ops
