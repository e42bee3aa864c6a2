#pragma once

#include "llmz/core/exec.h"

namespace llmz::ops {

/// out[t] = table[tokens[t]] (+ positions[position_offset + t mod seq_len] where present).
/// out [T,H], tokens [T] i32, table [V,H], positions [P,H] or absent. Token ids are the caller's to have checked.
void embedding_forward(Exec& exec, Tensor out, Tensor tokens, Tensor table, Tensor positions, int64_t seq_len,
                       int64_t position_offset);

/// dtable[tokens[t]] += dout[t];  dpositions[t mod seq_len] += dout[t] where present. The order of additions
/// is fixed by the tokens alone.
void embedding_backward(Exec& exec, Tensor dtable, Tensor dpositions, Tensor dout, Tensor tokens, int64_t seq_len);

}  // namespace llmz::ops
