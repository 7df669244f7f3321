// SPDX-License-Identifier: Apache-2.0
// One step on plain arrays, without a framework; returns 0 if one direction passed.
#include <pion/optim.h>

#include <iostream>
#include <vector>

int main() {
  std::vector<float> weight(12, 1.0f), gradient(12, 0.5f), momentum(12, 0.0f);
  pion::MatrixStepWorkspace workspace;
  const auto update = pion::matrix_step<float>(
      pion::view(weight.data(), 3, 4), pion::view<const float>(gradient.data(), 3, 4),
      pion::view(momentum.data(), 3, 4), pion::make_rule("pion"), {}, workspace);
  std::cout << update.directions_passed << " directions of " << update.directions << '\n';
  return update.directions_passed > 0.99 && update.directions_passed < 1.01 ? 0 : 1;
}
