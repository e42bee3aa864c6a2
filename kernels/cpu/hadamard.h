#pragma once

#include <cstdint>

namespace llmz::cpu {

/// x ← H·(signs∘x)/√B in blocks of B = `block` elements (a power of two), H the Sylvester matrix; what is left of
/// `count` at the end goes in blocks of smaller powers of two. `scratch` holds `count` numbers.
void hadamard_rotate(float* x, float* scratch, const float* signs, int64_t count, int64_t block);
void hadamard_rotate(double* x, double* scratch, const float* signs, int64_t count, int64_t block);

/// The inverse: x ← signs∘(H·x)/√B.
void hadamard_unrotate(float* x, float* scratch, const float* signs, int64_t count, int64_t block);
void hadamard_unrotate(double* x, double* scratch, const float* signs, int64_t count, int64_t block);

}  // namespace llmz::cpu
