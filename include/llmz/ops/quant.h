#pragma once

#include "llmz/core/exec.h"
#include "llmz/core/random.h"

namespace llmz::ops {

/// How x [T,n] becomes whole numbers of `bits` bits. Each row is cut into groups of `group` elements (the last may be
/// shorter), and a group has one scale s = max|x| / (2^(bits−1) − ½), rounded up to bf16; x ≈ s·(q − 2^(bits−1) + ½)
/// with q = 0 … 2^bits − 1: all levels are used, both ends are met. A group of zeros gives zeros.
struct QuantFormat {
  int bits = 8;        ///< 8 or 4; two 4-bit numbers a byte, the even element in the low half
  int64_t group = 0;   ///< elements a scale; 0 = the whole row. Even for 4 bits
  int64_t rotate = 0;  ///< 0, or a power of two 2 … 1024: rows are first multiplied, in blocks of so many elements, by
                       ///< a Hadamard matrix over √rotate with random column signs; what is left of n at the end is
                       ///< rotated in blocks of smaller powers of two
  bool stochastic = false;  ///< round up with the probability of the fraction (unbiased), else to nearest

  int64_t groups(int64_t width) const { return group == 0 ? 1 : (width + group - 1) / group; }
  /// Bytes of one row's numbers.
  int64_t row_bytes(int64_t width) const { return bits == 8 ? width : (width + 1) / 2; }
};

/// codes u8 [T, row_bytes(n)], scales bf16 [T, groups(n)] from x [T,n] (f32, bf16, f64; strided rows). `signs` gives
/// the rotation's signs (element i's is signs.sign(i)), `rounding` the draws: element (t, i) uses number t·n + i, so
/// the codes do not depend on threads. Overwrites.
void quantize(Exec& exec, Tensor codes, Tensor scales, Tensor x, const QuantFormat& format, const RandomStream& signs,
              const RandomStream& rounding);

/// x~ [T,n] from what `quantize` wrote; the rotation is undone. Overwrites; strided rows.
void dequantize(Exec& exec, Tensor x, Tensor codes, Tensor scales, const QuantFormat& format,
                const RandomStream& signs);

}  // namespace llmz::ops
