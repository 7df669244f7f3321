// SPDX-License-Identifier: Apache-2.0
// Attention over packed sequences.
#pragma once

#include <torch/torch.h>

#include "lab/models/causal_lm_attention_kernel_call.h"
#include "lab/models/causal_lm_pack.h"
#include "pion/kernels/cpu_target.h"

namespace pion::lab {

// The fastest up to `target`.
const AttentionKernels& attention_kernels(CpuTarget target = cpu_target());

// Attention of every packed token to those before it in its sequence, after queries and
// keys are rotated. q: (N, heads, head_dim); k, v: (N, kv_heads, head_dim), kv_heads
// divides heads. Returns q's shape. Short sequences in f32 on the CPU are computed where
// they lie; others take the definition, rectangles of LibTorch's attention.
torch::Tensor packed_attention(const torch::Tensor& q, const torch::Tensor& k,
                               const torch::Tensor& v, const Rotation& rotation,
                               const TokenPack& pack);
torch::Tensor packed_attention_definition(const torch::Tensor& q, const torch::Tensor& k,
                                          const torch::Tensor& v,
                                          const Rotation& rotation,
                                          const TokenPack& pack);

}  // namespace pion::lab
