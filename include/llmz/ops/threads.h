#pragma once

#include <string_view>

namespace llmz::ops {

/// CPU threads that ops run on from now on (of the calling thread), at least 1. Part of what makes results repeat bit
/// for bit: matrix products add in another order with another number of threads.
void set_threads(int threads);
int threads();

/// What the CPU's own kernels run: "baseline", "avx2" or "avx512", the widest that the processor has unless the
/// environment's LLMZ_CPU_ISA names a lower one. An Error if it names what is not there.
std::string_view instruction_set();

}  // namespace llmz::ops
