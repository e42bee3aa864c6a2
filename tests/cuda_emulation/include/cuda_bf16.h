#pragma once

// The few conversions of NVIDIA's bf16 header that llmz's kernels use. See ../README.md.

#include "cuda_runtime.h"
#include "llmz/core/dtype.h"

using __nv_bfloat16 = llmz::bf16;
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return llmz::bf16(x); }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 x) { return x.bits; }
