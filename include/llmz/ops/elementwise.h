#pragma once

#include "llmz/core/exec.h"
#include "llmz/core/random.h"

namespace llmz::ops {

/// y += x, same shape; both may have strided rows.
void add(Exec& exec, Tensor y, Tensor x);

/// out = in, converting dtype; same shape (up to 4 dimensions), any strides with a dense last dimension.
void copy(Exec& exec, Tensor out, Tensor in);

/// Every element becomes `value`.
void fill(Exec& exec, Tensor x, float value);

/// x[i] = stddev · stream.normal(first + i), i counted row-major; contiguous.
void fill_normal(Exec& exec, Tensor x, const RandomStream& stream, uint64_t first, float stddev);

}  // namespace llmz::ops
