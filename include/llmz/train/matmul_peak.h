#pragma once

namespace llmz::train {

/// FLOP/s that this machine reaches now on an fp32 matrix product of 2048³, the best of `repetitions`, or of fewer
/// where they take more than half a second together: the yardstick of "% of matmul peak". Takes about 48 MB for a
/// moment.
double measure_matmul_peak(int repetitions = 3);

}  // namespace llmz::train
