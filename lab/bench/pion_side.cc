// SPDX-License-Identifier: Apache-2.0
#include <torch/torch.h>

#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "lab/bench/sides.h"
#include "pion/kernels/elementwise.h"
#include "pion/kernels/tiles.h"
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

// What a blockwise step does to the caller's memory, with the kernels that do it: the
// scan of the gradient; momentum, look-ahead and bf16 tiles; decay and update at the end
// of a product, here of the least depth, 32.
struct Passes {
  at::Tensor weight, gradient, momentum;
  MatrixRule rule;
  std::vector<Bf16Bits> left, right;
  std::vector<double> squares;

  explicit Passes(const Problem& problem)
      : weight(problem.weights.front().clone()),
        gradient(problem.gradients.front().clone()),
        momentum(at::zeros_like(weight)),
        rule(*matrix_rule(problem.rule)) {
    const std::size_t tiles = 4 * kTileSize * blocks(0) * blocks(1);
    left.resize(tiles);
    right.resize(tiles);
  }
  std::size_t size(int side) const { return static_cast<std::size_t>(weight.size(side)); }
  std::size_t blocks(int side) const {
    return (size(side) + kBlockEdge - 1) / kBlockEdge;
  }

  void step() {
    const TileKernels& kernels = tile_kernels(cpu_target());
    const std::size_t cols = size(1);
    gradient_squares({.f32 = gradient.const_data_ptr<float>()}, size(0) * cols);
    kernels.load({.gradient = gradient.const_data_ptr<float>(),
                  .gradient_stride = cols,
                  .momentum = momentum.data_ptr<float>(),
                  .momentum_stride = cols,
                  .update_momentum = true,
                  .mu = static_cast<float>(rule.momentum),
                  .share = static_cast<float>(1 - rule.momentum),
                  .nesterov = rule.nesterov,
                  .scale = 1,
                  .rows = size(0),
                  .cols = cols,
                  .left = left.data(),
                  .left_step = blocks(1) * kTileSize,
                  .right = right.data(),
                  .right_step = blocks(0) * kTileSize});
    TileUpdate update{.product = {.left = left.data(),
                                  .left_step = blocks(1) * kTileSize,
                                  .right = right.data(),
                                  .right_step = blocks(0) * kTileSize,
                                  .k_tiles = 1,
                                  .row_blocks = blocks(0),
                                  .col_blocks = blocks(1),
                                  .symmetric = false},
                      .decay = static_cast<float>(1 - rule.lr * rule.weight_decay),
                      .alpha = static_cast<float>(-rule.lr),
                      .weight = weight.data_ptr<float>(),
                      .weight_stride = cols,
                      .rows = size(0),
                      .cols = cols};
    const std::size_t items = item_count(update.product);
    squares.resize(items);
    update.squares = squares.data();
    kernels.update(update, 0, items);
  }
};

// lerp_, lerp, bfloat16, norm, div_, mul_, add_.
Contender aten_contender(const Problem& problem) {
  const MatrixRule rule = *matrix_rule(problem.rule);
  const at::Tensor weight = problem.weights.front().clone();
  const at::Tensor gradient = problem.gradients.front().clone();
  const at::Tensor momentum = at::zeros_like(weight);
  return {"7 ATen operations", [=] {
            const at::NoGradGuard no_grad;
            momentum.lerp_(gradient, 1 - rule.momentum);
            const at::Tensor direction =
                gradient.lerp(momentum, rule.momentum).to(at::kBFloat16);
            direction.div_(direction.norm());
            weight.mul_(1 - rule.lr * rule.weight_decay);
            weight.add_(direction, -rule.lr);
          }};
}

}  // namespace

std::vector<Contender> outside_map_contenders(const Problem& problem) {
  const std::vector<ParameterShape>& shapes = problem.workload.parameters;
  if (shapes.size() != 1 || shapes.front().heads != 1)
    throw std::invalid_argument(
        "outside_map_contenders: the workload must be one matrix without heads, got \"" +
        problem.workload.text + "\"");
  auto passes = std::make_shared<Passes>(problem);
  return {{"pion passes", [passes] { passes->step(); }}, aten_contender(problem)};
}

}  // namespace pion::bench
