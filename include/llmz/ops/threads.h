#pragma once

namespace llmz::ops {

/// CPU threads that ops run on from now on (of the calling thread), at least 1. Part of what makes results repeat bit
/// for bit: matrix products add in another order with another number of threads.
void set_threads(int threads);
int threads();

}  // namespace llmz::ops
