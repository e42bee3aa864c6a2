#include "llmz/codec/codec.h"

namespace llmz::codec {

void Codec::low_rank_grad(Exec&, Tensor, Tensor, Tensor) { fail("this codec makes no low-rank gradients"); }

}  // namespace llmz::codec
