// SPDX-License-Identifier: Apache-2.0
// Products of batches of matrices on any device, and what they round.
#pragma once

#include <ATen/core/Tensor.h>

namespace pion {

// alpha a b in `type`, summed in f32 and rounded once. Operands of one 16-bit type use a
// CUDA device's tensor cores; elsewhere they are widened and multiplied in f32, which is
// the same arithmetic exactly, since a product of two of their entries fits f32. Operands
// of f32 or f64 are multiplied in their own type, never in TF32. All are (batch, rows,
// cols).
at::Tensor product(const at::Tensor& a, const at::Tensor& b, at::ScalarType type,
                   double alpha = 1.0);

// alpha a b + beta c, rounded once, in the type of c.
at::Tensor sum_product(const at::Tensor& c, const at::Tensor& a, const at::Tensor& b,
                       double beta, double alpha);

// to <- beta to + alpha a b. `to` may have a wider type than a and b, and any strides.
void add_product(const at::Tensor& to, const at::Tensor& a, const at::Tensor& b,
                 double beta, double alpha);

// The type of the operands of fast products: fp16, or bf16 where matrix units take that
// alone.
at::ScalarType product_type(const at::Device& device);

}  // namespace pion
