// SPDX-License-Identifier: Apache-2.0
#include "lab/algorithms/policy_gradient/kl.h"

namespace pion::lab {

torch::Tensor k2(const torch::Tensor& d) { return 0.5 * d.square(); }

torch::Tensor k3(const torch::Tensor& d) {
  const torch::Tensor x = d.clamp(-kLogRatioLimit, kLogRatioLimit);
  return x.expm1() - x;  // expm1: e^d - 1 loses all digits of a small d
}

}  // namespace pion::lab
