#pragma once

#include "llmz/core/tensor.h"

namespace llmz::engine {

/// FLOP/s that this machine reaches now on a matrix product of random numbers of `type`, 2048³ on the CPU and 8192³ on
/// a GPU, the best of `repetitions`, or of fewer where they take more than half a second together: the yardstick of "%
/// of matmul peak". Takes three matrices' memory for a moment.
double measure_matmul_peak(Device device = {}, DType type = DType::f32, bool tf32 = false, int repetitions = 3);

}  // namespace llmz::engine
