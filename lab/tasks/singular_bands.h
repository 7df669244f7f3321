// SPDX-License-Identifier: Apache-2.0
// Which directions of a gradient are signal and which are noise of its batch.
#pragma once

#include <torch/torch.h>

#include <vector>

#include "lab/run/task.h"

namespace pion::lab {

// For gradients G = U diag(s) V^T and independent gradients G' of the same matrices, in
// bands of directions, strongest first:
//
//   signal of a band = sum u_i^T G' v_i / sum s_i    over its directions i, all matrices
//
// 1: G' has as much along them; 0: what G has there is noise of its batch. A high-pass
// filter on singular values is right where the signal falls from band to band. Directions
// below 1e-6 of a matrix's first are none. In double.
//
// signal_1, signal_2_4, signal_5_16, signal_17_64, signal_65_up: a band that no matrix
// has is left out. Shapes: 2-D, those of `independent` equal. Throws
// std::invalid_argument.
Json singular_band_signal(const std::vector<torch::Tensor>& gradients,
                          const std::vector<torch::Tensor>& independent);

}  // namespace pion::lab
