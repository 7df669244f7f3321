// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <torch/torch.h>

#include <functional>
#include <vector>

namespace pion::lab {

// call(x), whose intermediate results are not kept but computed again in the backward
// pass; x and `parameters` receive the same gradients to the bit. `call` must give the
// same both times, so it draws no random numbers. Without autograd it is call(x).
torch::Tensor checkpointed(const torch::Tensor& x,
                           const std::vector<torch::Tensor>& parameters,
                           std::function<torch::Tensor(const torch::Tensor&)> call);

}  // namespace pion::lab
