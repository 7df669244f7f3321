// SPDX-License-Identifier: Apache-2.0
// Estimators of KL from log-ratios of sampled tokens (J. Schulman, "Approximating KL
// divergence", 2020), for d = log q - log p and samples of p:
//
//   k1 = -d            unbiased, either sign
//   k2 = d^2 / 2       biased, its gradient in p is the gradient of KL(p, q)
//   k3 = e^d - d - 1   unbiased and >= 0
#pragma once

#include <torch/torch.h>

namespace pion::lab {

// e^20 fits f32 with room for sums; as verl
inline constexpr double kLogRatioLimit = 20.0;

// k3 clamps d to +-kLogRatioLimit.
torch::Tensor k2(const torch::Tensor& d);
torch::Tensor k3(const torch::Tensor& d);

}  // namespace pion::lab
