// SPDX-License-Identifier: Apache-2.0
#include "lab/tasks/equal_rms.h"

#include <cmath>
#include <map>
#include <stdexcept>
#include <string>

namespace pion::lab {
namespace {

// of ||D||_F: far below one direction, whose norm is about 1
constexpr double kFloor = 1e-4;

// The learning rate of every chosen parameter, in order.
std::vector<double> checked_rates(Optimizer& optimizer,
                                  const std::vector<torch::Tensor>& chosen) {
  std::map<const c10::TensorImpl*, const GroupOptions*> groups;
  for (auto& group : optimizer.param_groups())
    for (auto& parameter : group.params())
      groups[parameter.unsafeGetTensorImpl()] =
          &static_cast<const GroupOptions&>(group.options());
  std::vector<double> rates;
  for (const torch::Tensor& parameter : chosen) {
    const auto at = groups.find(parameter.unsafeGetTensorImpl());
    if (at == groups.end())
      throw std::invalid_argument(
          "equal_rms_step: every chosen parameter must be the optimizer's");
    const auto decay = get_rule_key(at->second->rule(), "weight_decay");
    if (decay && std::get<double>(*decay) != 0.0)
      throw std::invalid_argument("equal_rms_step: weight_decay must be 0, got " +
                                  std::to_string(std::get<double>(*decay)) +
                                  "; set it to 0 or equal_rms to false");
    if (parameter.scalar_type() != torch::kFloat32 &&
        parameter.scalar_type() != torch::kFloat64)
      throw std::invalid_argument("equal_rms_step: parameters must be f32 or f64, got " +
                                  std::string(c10::toString(parameter.scalar_type())));
    rates.push_back(at->second->get_lr() * optimizer.lr_factor());
  }
  return rates;
}

}  // namespace

std::vector<double> equal_rms_step(Optimizer& optimizer,
                                   const std::vector<torch::Tensor>& chosen) {
  const std::vector<double> rates = checked_rates(optimizer, chosen);
  const torch::NoGradGuard no_grad;
  std::vector<torch::Tensor> before;
  for (torch::Tensor parameter : chosen) {
    before.push_back(parameter.clone());
    parameter.zero_();
  }
  optimizer.step();

  std::vector<double> sizes;
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    torch::Tensor parameter = chosen[i];  // holds -lr D
    const double norm = rates[i] > 0.0 ? parameter.norm().item<double>() / rates[i] : 0.0;
    const double size =
        std::sqrt(static_cast<double>(parameter.numel())) / (norm + kFloor);
    parameter.mul_(size).add_(before[i]);
    sizes.push_back(rates[i] * norm / (norm + kFloor));
  }
  return sizes;
}

void equal_rms_step(Optimizer& optimizer) {
  std::vector<torch::Tensor> all;
  for (auto& group : optimizer.param_groups())
    for (auto& parameter : group.params()) all.push_back(parameter);
  equal_rms_step(optimizer, all);
}

}  // namespace pion::lab
