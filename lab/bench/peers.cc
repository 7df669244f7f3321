// SPDX-License-Identifier: Apache-2.0
// The peers, from the definitions: momentum lerp, Nesterov lerp, norm, X <- a X + (b A +
// c A^2) X with A = X X^T, decay, update.
#include <ATen/ATen.h>

#include <algorithm>
#include <memory>

#include "lab/bench/sides.h"
#include "pion/optim/matrix_step.h"

namespace pion::bench {
namespace {

at::Tensor direction_of(const at::Tensor& gradient, const at::Tensor& momentum,
                        const MatrixRule& rule) {
  momentum.lerp_(gradient, 1 - rule.momentum);
  return rule.nesterov ? gradient.lerp(momentum, rule.momentum) : momentum;
}

// The update of every block at once: factor s O, with s the same for all of them.
void move(const at::Tensor& weight, const at::Tensor& update, const MatrixRule& rule,
          const ParameterShape& shape) {
  weight.mul_(1 - rule.lr * rule.weight_decay);
  weight.add_(update, -rule.lr * rule_scale(rule, shape.rows, shape.cols));
}

struct Tensors {
  at::Tensor weight, gradient, momentum;
  ParameterShape shape;
  QuinticSequence sequence;
};

std::vector<Tensors> whole_parameters(const Problem& problem) {
  std::vector<Tensors> all;
  for (std::size_t i = 0; i < problem.weights.size(); ++i) {
    const ParameterShape& shape = problem.workload.parameters[i];
    all.push_back({problem.weights[i].clone(), problem.gradients[i].clone(),
                   at::zeros_like(problem.weights[i]), shape,
                   rule_map(problem.rule, shape.rows, shape.cols).sequence});
  }
  return all;
}

// The heads of a parameter as one batched product.
Side batched_side(const Problem& problem, std::string name, at::ScalarType type,
                  bool inside) {
  auto all = std::make_shared<std::vector<Tensors>>(whole_parameters(problem));
  const MatrixRule rule = *matrix_rule(problem.rule);
  const auto step = [all, rule, type, inside] {
    const at::NoGradGuard no_grad;
    for (const Tensors& each : *all) {
      const at::Tensor direction = direction_of(each.gradient, each.momentum, rule);
      if (each.shape.heads == 1) {
        const at::Tensor copy = direction.to(type, /*non_blocking=*/false, /*copy=*/true);
        move(each.weight, peer_map(copy, each.sequence, inside), rule, each.shape);
        continue;
      }
      // tall blocks are turned by the copy, so that products read along rows
      const bool tall = each.shape.rows > each.shape.cols;
      const at::Tensor cut = cut_in_blocks(direction, each.shape);
      const at::Tensor wide = (tall ? cut.mT() : cut)
                                  .to(type, /*non_blocking=*/false, /*copy=*/true,
                                      at::MemoryFormat::Contiguous);
      const at::Tensor mapped = peer_map(wide, each.sequence, inside);
      move(each.weight, join_blocks(tall ? mapped.mT() : mapped, each.shape), rule,
           each.shape);
    }
  };
  const auto weights = [all] {
    std::vector<at::Tensor> result;
    for (const Tensors& each : *all) result.push_back(each.weight);
    return result;
  };
  return {{std::move(name), step}, weights};
}

// torch.optim.Muon knows no heads: each is a parameter of its own.
Side per_head_side(const Problem& problem, std::string name) {
  struct Heads {
    std::vector<std::vector<Tensors>> of;  // of every parameter
  };
  auto heads = std::make_shared<Heads>();
  for (const Tensors& whole : whole_parameters(problem)) {
    heads->of.emplace_back();
    const at::Tensor weights = cut_in_blocks(whole.weight, whole.shape);
    const at::Tensor gradients = cut_in_blocks(whole.gradient, whole.shape);
    for (std::int64_t head = 0; head < whole.shape.heads; ++head) {
      const at::Tensor weight = weights[head].clone(at::MemoryFormat::Contiguous);
      heads->of.back().push_back({weight,
                                  gradients[head].clone(at::MemoryFormat::Contiguous),
                                  at::zeros_like(weight), whole.shape, whole.sequence});
    }
  }
  const MatrixRule rule = *matrix_rule(problem.rule);
  const auto step = [heads, rule] {
    const at::NoGradGuard no_grad;
    for (const auto& parameter : heads->of) {
      for (const Tensors& each : parameter) {
        const at::Tensor direction = direction_of(each.gradient, each.momentum, rule);
        const at::Tensor update =
            peer_map(direction.to(at::kBFloat16), each.sequence, /*inside=*/true);
        move(each.weight, update, rule, each.shape);
      }
    }
  };
  const auto weights = [heads] {
    std::vector<at::Tensor> result;
    for (const auto& parameter : heads->of) {
      std::vector<at::Tensor> blocks;
      for (const Tensors& each : parameter) blocks.push_back(each.weight);
      result.push_back(join_blocks(at::stack(blocks), parameter.front().shape));
    }
    return result;
  };
  return {{std::move(name), step}, weights};
}

// LibTorch's multi-tensor steps, the ones of torch.optim with fused=True.
Side fused_side(const Problem& problem) {
  struct Lists {
    std::vector<at::Tensor> weights, gradients, first, second, steps;
    bool fresh = true;
  };
  auto lists = std::make_shared<Lists>();
  for (std::size_t i = 0; i < problem.weights.size(); ++i) {
    lists->weights.push_back(problem.weights[i].clone());
    lists->gradients.push_back(problem.gradients[i].clone());
    lists->first.push_back(at::zeros_like(problem.weights[i]));
    lists->second.push_back(at::zeros_like(problem.weights[i]));
    lists->steps.push_back(at::zeros({}, at::kFloat));
  }
  std::function<void()> step;
  if (const auto* adamw = std::get_if<AdamWRule>(&problem.rule)) {
    step = [lists, rule = *adamw] {
      const at::NoGradGuard no_grad;
      at::_foreach_add_(lists->steps, 1);
      at::_fused_adamw_(lists->weights, lists->gradients, lists->first, lists->second, {},
                        lists->steps, rule.lr, rule.beta1, rule.beta2, rule.weight_decay,
                        rule.eps, /*amsgrad=*/false, /*maximize=*/false);
    };
  } else {
    step = [lists, rule = std::get<SgdRule>(problem.rule)] {
      const at::NoGradGuard no_grad;
      at::_fused_sgd_(lists->weights, lists->gradients, lists->first, rule.weight_decay,
                      rule.momentum, rule.lr, rule.dampening, rule.nesterov,
                      /*maximize=*/false, /*is_first_step=*/lists->fresh);
      lists->fresh = false;
    };
  }
  return {{"fused", step}, [lists] { return lists->weights; }};
}

}  // namespace

at::Tensor peer_map(const at::Tensor& input, const QuinticSequence& sequence,
                    bool inside) {
  constexpr double kSmallestNorm = 1e-7;  // keeps a zero matrix zero
  const bool tall = input.size(-2) > input.size(-1);
  at::Tensor x = tall ? input.mT() : input;
  x.div_(x.norm(2, {-2, -1}, /*keepdim=*/true).clamp_min(kSmallestNorm));
  const bool batched = x.dim() == 3;
  for (const auto& [a, b, c] : sequence) {
    if (!inside) {
      const at::Tensor gram = at::matmul(x, x.mT());
      const at::Tensor polynomial = b * gram + c * at::matmul(gram, gram);
      x = a * x + at::matmul(polynomial, x);
    } else if (batched) {
      const at::Tensor gram = at::bmm(x, x.mT());
      x = at::baddbmm(x, at::baddbmm(gram, gram, gram, b, c), x, a);
    } else {
      const at::Tensor gram = at::mm(x, x.t());
      x = at::addmm(x, at::addmm(gram, gram, gram, b, c), x, a);
    }
  }
  return tall ? x.mT() : x;
}

std::vector<Side> peer_sides(const Problem& problem, bool with_f32) {
  if (!is_matrix_rule(problem.rule)) return {fused_side(problem)};
  std::vector<Side> sides;
  const auto& shapes = problem.workload.parameters;
  if (std::holds_alternative<MuonRule>(problem.rule)) {
    sides.push_back(per_head_side(problem, "optim_muon"));
  } else if (std::any_of(shapes.begin(), shapes.end(),
                         [](const ParameterShape& each) { return each.heads > 1; })) {
    sides.push_back(per_head_side(problem, "per_head_bf16"));
  }
  sides.push_back(batched_side(problem, "plain_bf16", at::kBFloat16, false));
  sides.push_back(batched_side(problem, "addmm_bf16", at::kBFloat16, true));
  if (with_f32) sides.push_back(batched_side(problem, "addmm_f32", at::kFloat, true));
  return sides;
}

}  // namespace pion::bench
