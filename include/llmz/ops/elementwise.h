#pragma once

#include "llmz/core/exec.h"
#include "llmz/core/random.h"

namespace llmz::ops {

/// y += x, same shape; both may have strided rows.
void add(Exec& exec, Tensor y, Tensor x);

/// sums[t] = alpha·Σ_i a[t,i]·b[t,i] (+ sums[t] when `accumulate`); a [T,n]; b [T,n], or [n] for every row the same.
/// Rows may be strided. sums [T] is f32 (f64 for f64). The order of additions is fixed by n alone.
void row_dot(Exec& exec, Tensor sums, Tensor a, Tensor b, float alpha = 1.0f, bool accumulate = false);

/// x [n,n] = I; rows may be strided.
void set_identity(Exec& exec, Tensor x);

/// Every element of x [T,n] becomes the mean of its row; contiguous.
void row_means(Exec& exec, Tensor x);

/// norms[0] = Σ (a − b)², norms[1] = Σ b², over all elements; same shape, any strides with dense rows. norms [2] f64.
void difference_norms(Exec& exec, Tensor norms, Tensor a, Tensor b);

/// total[0] += Σ x, in double; total [1] f64, x contiguous. The order of additions is fixed by the number of elements.
void add_sum(Exec& exec, Tensor total, Tensor x);

/// out = in, converting dtype; same shape (up to 4 dimensions), any strides with a dense last dimension.
void copy(Exec& exec, Tensor out, Tensor in);

/// out bf16 = in f32, rounded up or down at random, up with the probability of the fraction (see WeightRounding in
/// ops/optimizer.h); same shape, out contiguous.
void round_stochastically(Exec& exec, Tensor out, Tensor in, const RandomStream& stream, uint64_t first);

/// x *= factor; rows may be strided.
void scale(Exec& exec, Tensor x, double factor);

/// Every element becomes `value`.
void fill(Exec& exec, Tensor x, double value);

/// x[i] = stddev · stream.normal(first + i), i counted row-major; contiguous.
void fill_normal(Exec& exec, Tensor x, const RandomStream& stream, uint64_t first, float stddev);

}  // namespace llmz::ops
