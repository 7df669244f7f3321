// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/torch.h>

#include <vector>

namespace pion::lab {

// Scales gradients so that their global norm is at most `max_norm` (0: leaves them) and
// returns the norm before. A norm that is not finite leaves them too: the optimizer
// decides what becomes of such gradients.
double clip_gradients(const std::vector<torch::Tensor>& parameters, double max_norm);

}  // namespace pion::lab
