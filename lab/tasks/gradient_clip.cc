// SPDX-License-Identifier: Apache-2.0
#include "lab/tasks/gradient_clip.h"

#include <cmath>

namespace pion::lab {

double clip_gradients(const std::vector<torch::Tensor>& parameters, double max_norm) {
  const torch::NoGradGuard no_grad;
  std::vector<torch::Tensor> gradients, norms;
  for (const torch::Tensor& parameter : parameters)
    if (parameter.grad().defined()) gradients.push_back(parameter.grad());
  if (gradients.empty()) return 0;
  for (const torch::Tensor& norm : at::_foreach_norm(gradients, 2))
    norms.push_back(norm.to(torch::kFloat64));
  const double norm = torch::stack(norms).norm().item<double>();
  if (max_norm > 0 && norm > max_norm && std::isfinite(norm))
    at::_foreach_mul_(gradients, max_norm / norm);
  return norm;
}

}  // namespace pion::lab
