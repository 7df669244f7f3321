// SPDX-License-Identifier: Apache-2.0
#include "pion/torch/aten_elementwise_step.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>

namespace pion {
namespace {

// A piece's tensors as (parameters, 1, entries).
struct ElementwiseStep {
  const Piece& piece;
  Batch weights, gradients;
  at::Tensor finite;  // (parameters) bool; undefined: nobody asks
  bool fused;         // by torch's own kernels

  explicit ElementwiseStep(const Piece& own);

  // `finite` where it broadcasts
  at::Tensor mask() const {
    return finite.defined() ? finite.view({-1, 1, 1}) : at::Tensor();
  }
  // What torch's kernels ask: a float that is 1 where everything stays.
  std::optional<at::Tensor> found_inf() const {
    if (!finite.defined()) return std::nullopt;
    return finite.logical_not().to(at::kFloat);
  }
  // to <- value, or stays
  void write(const at::Tensor& to, const at::Tensor& value) const {
    if (finite.defined()) {
      at::Tensor target = to;
      at::where_out(target, mask(), value, to);
    } else {
      to.copy_(value);
    }
  }
};

ElementwiseStep::ElementwiseStep(const Piece& own)
    : piece(own), weights(work_weights(own)), gradients(work_gradients(own)) {
  if (nonfinite_policy(*own.front().rule) == NonFinite::kSkip) {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    finite = at::linalg_vector_norm(gradients.all, kInfinity, at::IntArrayRef{1, 2})
                 .lt(kInfinity);
  }
  fused = has_fused_steps(weights.all.device()) &&
          (own.steps.size() == 1 || !finite.defined());
}

// (parameters, 1, 1): 1 - beta^t, without f64 and without waiting.
at::Tensor bias_correction(const at::Tensor& t, double beta) {
  return at::expm1(t * std::log(beta)).neg();
}

// The steps that this one makes, (parameters, 1, 1) in the work type.
at::Tensor times(const ElementwiseStep& step) {
  const std::vector<at::Tensor> counts = state_tensors(step.piece, &ParameterState::step);
  return at::stack(counts).to(step.weights.all.scalar_type()).add_(1).view({-1, 1, 1});
}

// lr / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
at::Tensor adamw_update(const AdamWRule& rule, const at::Tensor& m, const at::Tensor& v,
                        const at::Tensor& t) {
  const at::Tensor size = v.sqrt().div_(bias_correction(t, rule.beta2).sqrt_());
  return m.div(size.add_(rule.eps))
      .mul_(bias_correction(t, rule.beta1).reciprocal_().mul_(rule.lr));
}

void step_adamw(const ElementwiseStep& step, const AdamWRule& rule,
                StatisticsTable* table) {
  const Batch m = work_state(step.piece, &ParameterState::exp_avg);
  const Batch v = work_state(step.piece, &ParameterState::exp_avg_sq);
  const at::Tensor& w = step.weights.all;
  const at::Tensor& g = step.gradients.all;
  const at::Tensor t = times(step);
  if (step.fused) {
    const at::Tensor counts = t.view(-1).to(at::kFloat);
    at::_fused_adamw_(w.unbind(0), g.unbind(0), m.all.unbind(0), v.all.unbind(0), {},
                      counts.unbind(0), rule.lr, rule.beta1, rule.beta2,
                      rule.weight_decay, rule.eps, /*amsgrad=*/false,
                      /*maximize=*/false, /*grad_scale=*/{}, step.found_inf());
  } else {
    step.write(m.all, m.all.lerp(g, 1.0 - rule.beta1));
    step.write(v.all, v.all.lerp(g.square(), 1.0 - rule.beta2));
    const at::Tensor update = adamw_update(rule, m.all, v.all, t);
    step.write(w, w.mul(1.0 - rule.lr * rule.weight_decay).sub_(update));
  }
  m.scatter(), v.scatter();
  if (table != nullptr) {
    table->add(step.piece, g, step.finite, adamw_update(rule, m.all, v.all, t));
  }
}

void decay(const ElementwiseStep& step, double kept) {
  if (kept == 1) return;
  if (!step.finite.defined()) {
    step.weights.all.mul_(kept);
    return;
  }
  const auto type = step.weights.all.options();
  step.weights.all.mul_(
      at::where(step.mask(), at::full({}, kept, type), at::ones({}, type)));
}

void step_sgd(const ElementwiseStep& step, const SgdRule& rule, StatisticsTable* table) {
  const at::Tensor& w = step.weights.all;
  const at::Tensor& g = step.gradients.all;
  std::optional<Batch> buffer;
  if (rule.momentum > 0)
    buffer.emplace(work_state(step.piece, &ParameterState::momentum_buffer));
  decay(step, 1.0 - rule.lr * rule.weight_decay);
  const auto direction = [&] {
    if (!buffer) return g;
    return rule.nesterov ? g.add(buffer->all, rule.momentum) : buffer->all;
  };
  // zeros before the first step make b = g there, unless it is damped
  if (step.fused && (!buffer || rule.dampening == 0)) {
    at::_fused_sgd_(w.unbind(0), g.unbind(0),
                    buffer ? buffer->all.unbind(0) : std::vector<at::Tensor>(),
                    /*weight_decay=*/0.0, rule.momentum, rule.lr, rule.dampening,
                    rule.nesterov, /*maximize=*/false, /*is_first_step=*/false,
                    /*grad_scale=*/{}, step.found_inf());
  } else {
    if (buffer) {
      const at::Tensor later =
          buffer->all.mul(rule.momentum).add_(g, 1.0 - rule.dampening);
      step.write(buffer->all, at::where(times(step) == 1, g, later));
    }
    step.write(w, w.sub(direction(), rule.lr));
  }
  if (buffer) buffer->scatter();
  if (table != nullptr) table->add(step.piece, g, step.finite, direction().mul(rule.lr));
}

}  // namespace

void step_elementwise(const Piece& piece, StatisticsTable* table) {
  const ElementwiseStep step(piece);
  const Rule& rule = *piece.front().rule;
  if (const auto* adamw = std::get_if<AdamWRule>(&rule)) {
    step_adamw(step, *adamw, table);
  } else {
    step_sgd(step, std::get<SgdRule>(rule), table);
  }
  if (learning_rate(rule) != 0) write_weights(piece, step.weights);
  count_steps(piece, step.finite);
}

}  // namespace pion
