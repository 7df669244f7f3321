// SPDX-License-Identifier: Apache-2.0
// Differentiable steps of a layer, each one pass over memory. For dense f32 on the CPU;
// anything else takes LibTorch's operations, the definition.
#pragma once

#include <torch/torch.h>

#include "lab/models/causal_lm_kernel_call.h"
#include "pion/kernels/cpu_target.h"

namespace pion::lab {

// The fastest up to `target`.
const FusedKernels& fused_kernels(CpuTarget target = cpu_target());

// x / sqrt(mean(x^2) + eps) * gain over the last dimension, the mean in f32.
torch::Tensor rms_norm(const torch::Tensor& x, const torch::Tensor& gain, double eps);
torch::Tensor rms_norm_definition(const torch::Tensor& x, const torch::Tensor& gain,
                                  double eps);

// silu(gate) * up.
torch::Tensor gated(const torch::Tensor& gate, const torch::Tensor& up);
torch::Tensor gated_definition(const torch::Tensor& gate, const torch::Tensor& up);

// The rotation of Su et al., arXiv:2104.09864, on halves, as Hugging Face pairs them. x:
// (tokens, heads, dim); cosine, sine: (tokens, 1, dim), both halves equal.
torch::Tensor rotated(const torch::Tensor& x, const torch::Tensor& cosine,
                      const torch::Tensor& sine);
torch::Tensor rotated_definition(const torch::Tensor& x, const torch::Tensor& cosine,
                                 const torch::Tensor& sine);

}  // namespace pion::lab
