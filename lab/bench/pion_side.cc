// SPDX-License-Identifier: Apache-2.0
#include <torch/torch.h>

#include <memory>
#include <stdexcept>
#include <utility>

#include "lab/bench/sides.h"
#include "pion/optim/matrix_step.h"
#include "pion/torch/optimizer.h"

namespace pion::bench {
namespace {

HeadLayout layout_of(const ParameterShape& shape) {
  HeadLayout layout;
  if (shape.heads == 1) return layout;
  layout.axis = shape.axis;
  layout.heads = {shape.heads};
  return layout;
}

Rule with_precision(Rule rule, Precision precision) {
  if (auto* pion = std::get_if<PionRule>(&rule)) pion->precision = precision;
  if (auto* muon = std::get_if<MuonRule>(&rule)) muon->precision = precision;
  return rule;
}

}  // namespace

Side pion_side(const Problem& problem, Precision precision) {
  const Rule rule = with_precision(problem.rule, precision);
  std::vector<at::Tensor> parameters;
  std::vector<torch::optim::OptimizerParamGroup> groups;
  std::vector<HeadLayout> layouts;
  for (std::size_t i = 0; i < problem.weights.size(); ++i) {
    parameters.push_back(problem.weights[i].clone().requires_grad_());
    parameters.back().mutable_grad() = problem.gradients[i].clone();
    // neighbours that are cut alike share a group
    const HeadLayout layout = layout_of(problem.workload.parameters[i]);
    if (groups.empty() || !(layouts.back() == layout)) {
      std::unique_ptr<GroupOptions> options = make_options(rule);
      if (is_matrix_rule(rule)) options->set_layout(layout);
      groups.emplace_back(std::vector<at::Tensor>{}, std::move(options));
      layouts.push_back(layout);
    }
    groups.back().params().push_back(parameters.back());
  }
  auto optimizer = std::make_shared<Optimizer>(groups);
  return {{"pion " + std::string(precision_name(precision)),
           [optimizer] { optimizer->step(); }},
          [parameters] {
            std::vector<at::Tensor> weights;
            for (const at::Tensor& each : parameters) weights.push_back(each.detach());
            return weights;
          }};
}

namespace {

// pion's map of one f32 matrix, its memory kept.
Contender map_contender(const at::Tensor& input, const SpectralMap& map) {
  struct Kept {
    at::Tensor input, output;
    SpectralMap map;
    SpectralWorkspace workspace;
  };
  auto kept = std::make_shared<Kept>(
      Kept{input.contiguous(), at::empty_like(input.contiguous()), map, {}});
  return {"pion map", [kept] {
            const std::int64_t rows = kept->input.size(0), cols = kept->input.size(1);
            const MatrixViewOf<const float> x{kept->input.const_data_ptr<float>(), rows,
                                              cols, cols};
            const MatrixViewOf<float> o{kept->output.data_ptr<float>(), rows, cols, cols};
            apply_spectral_map<float>(kept->map, {&x, 1}, {&o, 1}, kept->workspace);
          }};
}

// lerp_, lerp, mul_, add_; with `normalized` also bfloat16, norm, div_ between them.
Contender aten_contender(const Problem& problem, bool normalized) {
  const MatrixRule rule = *matrix_rule(problem.rule);
  const at::Tensor weight = problem.weights.front().clone();
  const at::Tensor gradient = problem.gradients.front().clone();
  const at::Tensor momentum = at::zeros_like(weight);
  return {normalized ? "7 ATen operations" : "4 ATen operations", [=] {
            const at::NoGradGuard no_grad;
            momentum.lerp_(gradient, 1 - rule.momentum);
            at::Tensor direction = gradient.lerp(momentum, rule.momentum);
            if (normalized) {
              direction = direction.to(at::kBFloat16);
              direction.div_(direction.norm());
            }
            weight.mul_(1 - rule.lr * rule.weight_decay);
            weight.add_(direction, -rule.lr);
          }};
}

}  // namespace

std::vector<Contender> outside_map_contenders(const Problem& problem,
                                              Precision precision) {
  const std::vector<ParameterShape>& shapes = problem.workload.parameters;
  if (shapes.size() != 1 || shapes.front().heads != 1)
    throw std::invalid_argument(
        "outside_map_contenders: the workload must be one matrix without heads, got \"" +
        problem.workload.text + "\"");
  const SpectralMap map = rule_map(with_precision(problem.rule, precision),
                                   shapes.front().rows, shapes.front().cols);
  return {pion_side(problem, precision).contender,
          map_contender(problem.gradients.front(), map), aten_contender(problem, false),
          aten_contender(problem, true)};
}

}  // namespace pion::bench
