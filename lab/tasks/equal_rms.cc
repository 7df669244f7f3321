// SPDX-License-Identifier: Apache-2.0
#include "lab/tasks/equal_rms.h"

#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

namespace pion::lab {
namespace {

constexpr double kFloor =
    1e-4;  // of ||D||_F: far below one direction, whose norm is about 1

void check_no_decay(const GroupOptions& options) {
  const auto decay = get_rule_key(options.rule(), "weight_decay");
  if (decay && std::get<double>(*decay) != 0.0) {
    throw std::invalid_argument("equal_rms_step: weight_decay must be 0, got " +
                                std::to_string(std::get<double>(*decay)) +
                                "; set it to 0 or equal_rms to false");
  }
}

}  // namespace

void equal_rms_step(Optimizer& optimizer) {
  for (auto& group : optimizer.param_groups()) {
    check_no_decay(static_cast<const GroupOptions&>(group.options()));
  }
  const torch::NoGradGuard no_grad;
  std::vector<torch::Tensor> before;
  for (auto& group : optimizer.param_groups()) {
    for (auto& parameter : group.params()) {
      before.push_back(parameter.clone());
      parameter.zero_();
    }
  }
  optimizer.step();

  std::size_t index = 0;
  for (auto& group : optimizer.param_groups()) {
    const double lr = group.options().get_lr() * optimizer.lr_factor();
    for (auto& parameter : group.params()) {  // holds -lr D
      const double norm = lr > 0.0 ? parameter.norm().item<double>() / lr : 0.0;
      const double size =
          std::sqrt(static_cast<double>(parameter.numel())) / (norm + kFloor);
      parameter.mul_(size).add_(before[index++]);
    }
  }
}

}  // namespace pion::lab
