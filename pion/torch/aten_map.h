// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include "pion/spectral/spectral_map.h"

namespace pion {

// apply_spectral_map by ATen operations: x and the result are (batch, rows, cols), f32 or
// f64.
at::Tensor aten_spectral_map(const SpectralMap& map, const at::Tensor& x);

// Largest singular value of every matrix of x relative to its Frobenius norm, (batch, 1,
// 1); 0 for a zero matrix. At most 0.3 % too small up to 4096 rows.
at::Tensor aten_relative_sigma(const at::Tensor& x);

}  // namespace pion
