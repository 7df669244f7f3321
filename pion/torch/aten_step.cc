// SPDX-License-Identifier: Apache-2.0
#include "pion/torch/aten_step.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "pion/optim/step_checks.h"
#include "pion/torch/aten_map.h"
#include "pion/torch/aten_rounding.h"

namespace pion {
namespace {

// A step's tensors in the work type, and what becomes of them if the gradient is finite.
struct Work {
  const ParameterStep* step;
  at::Tensor weight, gradient;
  at::Tensor
      finite;  // bool scalar: false leaves everything as it is; undefined: not asked

  // to <- value, or stays
  void write(const at::Tensor& to, const at::Tensor& value) const {
    to.copy_(finite.defined() ? at::where(finite, value, to) : value);
  }
};

constexpr int kStatistics = 11;  // in the order of UpdateStatistics
using StatisticsList = std::vector<at::Tensor>;

Work prepare(const ParameterStep& step) {
  const at::ScalarType type = work_type(step.parameter);
  Work work{&step, step.parameter.detach().to(type), step.gradient.to(type), {}};
  if (step.state->master.defined() &&
      step.options->low_precision() == LowPrecision::kMasterCopy) {
    // where somebody else has written the weight since, the weight counts
    const at::Tensor& master = step.state->master;
    work.weight =
        at::where(master.to(at::kBFloat16) == step.parameter, master, work.weight);
  }
  if (step.options->maximize()) work.gradient = work.gradient.neg();
  switch (nonfinite_policy(*step.rule)) {
    case NonFinite::kSkip:
      work.finite = at::isfinite(work.gradient).all();
      break;
    case NonFinite::kZero:
      work.gradient = at::nan_to_num(work.gradient, 0, 0, 0);
      break;
    case NonFinite::kRaise:
      break;  // looked at before the step
  }
  return work;
}

// Writes the new weight: into the master copy and rounded into the parameter.
void write_weight(const Work& work, const at::Tensor& value) {
  const ParameterStep& step = *work.step;
  const at::Tensor parameter = step.parameter.detach();
  if (parameter.scalar_type() != at::kBFloat16) return work.write(parameter, value);
  switch (step.options->low_precision()) {
    case LowPrecision::kMasterCopy:
      work.write(step.state->master, value);
      work.write(parameter, value.to(at::kBFloat16));
      break;
    case LowPrecision::kStochastic:
      work.write(parameter, aten_round_stochastically(value, step.seed));
      break;
    case LowPrecision::kNearest:
      work.write(parameter, value.to(at::kBFloat16));
      break;
  }
}

void count_step(const Work& work) {
  at::Tensor& step = work.step->state->step;
  if (work.finite.defined()) {
    step.add_(work.finite);
  } else {
    step.add_(1);
  }
}

at::Tensor size_of(const at::Tensor& x) {
  return at::linalg_vector_norm(x.to(at::kDouble), 2);
}

at::Tensor root_mean_square(const at::Tensor& x) {
  return size_of(x) / std::sqrt(static_cast<double>(x.numel()));
}

// Statistics of a parameter, or of one matrix of a stack, as one f64 tensor (1,
// kStatistics). `idle` is undefined outside of stacks.
at::Tensor pack(const Work& work, const at::Tensor& gradient, const at::Tensor& update,
                const StatisticsList& spectrum, const at::Tensor& idle = {}) {
  const auto options = update.options().dtype(at::kDouble);
  const at::Tensor skipped = work.finite.defined()
                                 ? work.finite.logical_not().to(at::kDouble)
                                 : at::zeros({}, options);
  StatisticsList all = {skipped, size_of(gradient), root_mean_square(update)};
  all.insert(all.end(), spectrum.begin(), spectrum.end());
  while (all.size() + 1 < kStatistics) all.push_back(at::zeros({}, options));
  all.push_back(idle.defined() ? idle : at::zeros({}, options));
  for (at::Tensor& value : all) value = value.to(at::kDouble).reshape({});
  return at::stack(all).unsqueeze(0);
}

at::Tensor step_adamw(const Work& work, const AdamWRule& rule, bool collect) {
  const ParameterState& state = *work.step->state;
  const at::Tensor m = state.exp_avg * rule.beta1 + work.gradient * (1.0 - rule.beta1);
  const at::Tensor v =
      state.exp_avg_sq * rule.beta2 + work.gradient * work.gradient * (1.0 - rule.beta2);
  const at::Tensor t = (state.step + 1).to(at::kDouble);
  const at::Tensor first = (1.0 - at::pow(rule.beta1, t)).to(m.scalar_type());
  const at::Tensor second = (1.0 - at::pow(rule.beta2, t)).sqrt().to(m.scalar_type());
  const at::Tensor update = rule.lr / first * (m / (v.sqrt() / second + rule.eps));
  work.write(state.exp_avg, m);
  work.write(state.exp_avg_sq, v);
  if (rule.lr != 0)
    write_weight(work, work.weight * (1.0 - rule.lr * rule.weight_decay) - update);
  count_step(work);
  return collect ? pack(work, work.gradient, update, {}) : at::Tensor();
}

at::Tensor step_sgd(const Work& work, const SgdRule& rule, bool collect) {
  const ParameterState& state = *work.step->state;
  at::Tensor direction = work.gradient;
  if (rule.momentum > 0) {
    const at::Tensor& old = state.momentum_buffer;
    const at::Tensor buffer =
        at::where(state.step == 0, work.gradient,
                  old * rule.momentum + work.gradient * (1.0 - rule.dampening));
    direction = rule.nesterov ? work.gradient + buffer * rule.momentum : buffer;
    work.write(old, buffer);
  }
  const at::Tensor update = direction * rule.lr;
  if (rule.lr != 0)
    write_weight(work, work.weight * (1.0 - rule.lr * rule.weight_decay) - update);
  count_step(work);
  return collect ? pack(work, work.gradient, update, {}) : at::Tensor();
}

// One part of a head layout in x (count, rows, cols), as a batch of its blocks.
struct Part {
  int axis;
  std::int64_t offset, size, heads;

  at::Tensor cut(const at::Tensor& x) const {
    const std::int64_t count = x.size(0), rows = x.size(1), cols = x.size(2);
    const at::Tensor part = x.narrow(1 + axis, offset, size);
    if (axis == 0) return part.reshape({count * heads, size / heads, cols});
    return part.reshape({count, rows, heads, size / heads})
        .transpose(1, 2)
        .reshape({count * heads, rows, size / heads});
  }
  at::Tensor join(const at::Tensor& blocks, std::int64_t count) const {
    if (axis == 0) return blocks.reshape({count, size, blocks.size(2)});
    return blocks.reshape({count, heads, blocks.size(1), blocks.size(2)})
        .transpose(1, 2)
        .reshape({count, blocks.size(1), size});
  }
};

std::vector<Part> layout_parts(const HeadLayout& layout, const MatrixShape& shape) {
  std::vector<std::int64_t> sizes = layout.sizes;
  if (sizes.empty()) sizes = {layout.axis == 0 ? shape.rows : shape.cols};
  std::vector<Part> parts;
  std::int64_t offset = 0;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    parts.push_back({layout.axis, offset, sizes[i], layout.heads[i]});
    offset += sizes[i];
  }
  return parts;
}

// s O of the blocks.
at::Tensor scaled(const at::Tensor& output, const MatrixRule& rule, bool transposed) {
  const std::int64_t rows = output.size(1), cols = output.size(2);
  const double scale =
      transposed ? rule_scale(rule, cols, rows) : rule_scale(rule, rows, cols);
  if (rule.scale != Scale::kUnitRms) return output * scale;
  const at::Tensor size = at::linalg_vector_norm(output, 2, at::IntArrayRef{1, 2}, true);
  const double entries = static_cast<double>(rows) * static_cast<double>(cols);
  return output * (scale * std::sqrt(entries) / (size + kUnitRmsFloor));
}

// The spectrum statistics of a part's blocks, (count, heads, 4): ||D||, sigma relative to
// it,
// ||O||^2, <D, O>.
at::Tensor block_statistics(const at::Tensor& direction, const at::Tensor& output,
                            std::int64_t count) {
  constexpr std::int64_t kMatrix[] = {1, 2};
  const at::IntArrayRef over = kMatrix;
  const at::Tensor d = direction.to(at::kDouble), o = output.to(at::kDouble);
  return at::stack({at::linalg_vector_norm(d, 2, over),
                    aten_relative_sigma(direction).to(at::kDouble).flatten(),
                    (o * o).sum(over), (d * o).sum(over)},
                   1)
      .reshape({count, -1, 4});
}

// From directions_passed to half_pass in UpdateStatistics.
StatisticsList spectrum_statistics(const at::Tensor& blocks, double directions,
                                   double half_pass) {
  const auto options = blocks.options();
  const at::Tensor size = blocks.select(2, 0), sigma = blocks.select(2, 1);
  const at::Tensor passed = blocks.select(2, 2), inner = blocks.select(2, 3);
  const auto safe = [](const at::Tensor& x) { return at::where(x > 0, x, 1); };
  const at::Tensor energy = (inner * inner / safe(size * size * passed)).clamp_max(1.0);
  // of every matrix of a stack; the largest of them
  const at::Tensor smallest = at::where(size > 0, size, INFINITY).amin(1);
  const at::Tensor spread = at::where(size.amax(1) > 0, size.amax(1) / smallest, 1).max();
  return {passed.sum(),
          at::full({}, directions, options),
          at::where(sigma > 0, 1 / safe(sigma * sigma), 0).mean(),
          sigma.max(),
          at::where(passed > 0, energy, 0).mean(),
          spread,
          at::full({}, half_pass, options)};
}

// The blocks of a matrix parameter in a step, for its statistics.
struct Mapped {
  at::Tensor update;               // lr s O, (count, rows, cols)
  std::vector<at::Tensor> blocks;  // by part, if they are collected
  double directions = 0;           // of one matrix
  double half_pass = 0;
};

Mapped map_direction(const Work& work, const MatrixRule& rule, const MatrixShape& shape,
                     const at::Tensor& direction, bool collect) {
  const ParameterStep& step = *work.step;
  Mapped mapped;
  std::vector<at::Tensor> updates;
  for (const Part& part : layout_parts(step.options->layout(), shape)) {
    const at::Tensor d = part.cut(direction);
    const SpectralMap map = rule_map(*step.rule, d.size(1), d.size(2));
    // what will not be written need not be decomposed: an SVD of NaN may throw
    const at::Tensor clean = work.finite.defined() ? at::where(work.finite, d, 0) : d;
    const at::Tensor output = aten_spectral_map(map, clean);
    const bool transposed = step.options->layout().transposed;
    updates.push_back(part.join(scaled(output, rule, transposed), shape.count));
    if (!collect) continue;
    mapped.directions +=
        static_cast<double>(part.heads * std::min(d.size(1), d.size(2)));
    mapped.blocks.push_back(block_statistics(clean, output, shape.count));
    if (std::holds_alternative<PionRule>(*step.rule)) {
      mapped.half_pass = std::max(mapped.half_pass, half_pass_point(map.sequence));
    }
  }
  mapped.update = at::cat(updates, 1 + step.options->layout().axis) * rule.lr;
  return mapped;
}

// (1, kStatistics); of a stack (count, kStatistics), a row for every matrix.
at::Tensor matrix_statistics(const Work& work, const MatrixShape& shape,
                             const Mapped& mapped, const at::Tensor& active) {
  const at::Tensor blocks = at::cat(mapped.blocks, 1);
  const auto count = static_cast<double>(shape.count);
  if (!shape.stack) {
    return pack(
        work, work.gradient, mapped.update,
        spectrum_statistics(blocks, count * mapped.directions, mapped.half_pass));
  }
  const at::Tensor gradient =
      work.gradient.reshape({shape.count, shape.rows, shape.cols});
  StatisticsList rows;
  for (std::int64_t k = 0; k < shape.count; ++k) {
    rows.push_back(pack(work, gradient[k], mapped.update[k],
                        spectrum_statistics(blocks.narrow(0, k, 1), mapped.directions,
                                            mapped.half_pass),
                        active[k].logical_not()));
  }
  return at::cat(rows);
}

at::Tensor step_matrix(Work& work, const MatrixRule& rule, bool collect) {
  const ParameterStep& step = *work.step;
  const MatrixShape shape = matrix_shape(step.parameter.sizes(), step.options->fold());
  const std::vector<std::int64_t> matrices = {shape.count, shape.rows, shape.cols};
  const at::Tensor& old = step.state->momentum_buffer;
  at::Tensor momentum = old * rule.momentum + work.gradient * (1.0 - rule.momentum);
  at::Tensor direction =
      (rule.nesterov ? momentum * rule.momentum + work.gradient * (1.0 - rule.momentum)
                     : momentum)
          .reshape(matrices);
  // a matrix of a stack whose gradient is zero is left alone
  at::Tensor active;  // (count, 1, 1)
  if (shape.stack) {
    active = (work.gradient.reshape(matrices) != 0).flatten(1).any(1).view({-1, 1, 1});
    momentum = at::where(active, momentum.reshape(matrices), old.reshape(matrices))
                   .reshape(old.sizes());
    direction = at::where(active, direction, 0);
  }
  if (work.finite.defined()) work.finite = work.finite & at::isfinite(direction).all();

  const Mapped mapped = map_direction(work, rule, shape, direction, collect);
  work.write(old, momentum);
  if (rule.lr != 0) {
    const at::Tensor update = mapped.update.reshape(step.parameter.sizes());
    at::Tensor moved = work.weight * (1.0 - rule.lr * rule.weight_decay) - update;
    if (shape.stack) {
      moved = at::where(active, moved.reshape(matrices), work.weight.reshape(matrices))
                  .reshape(step.parameter.sizes());
    }
    write_weight(work, moved);
  }
  count_step(work);
  return collect ? matrix_statistics(work, shape, mapped, active) : at::Tensor();
}

UpdateStatistics unpack(const double* values) {
  if (values[0] != 0) return {.skipped = true};
  if (values[10] != 0) return {.idle = 1};
  return {.skipped = false,
          .gradient_norm = values[1],
          .update_rms = values[2],
          .directions_passed = values[3],
          .directions = values[4],
          .stable_rank = values[5],
          .sigma_max = values[6],
          .energy_kept = values[7],
          .head_spread = values[8],
          .half_pass = values[9]};
}

// The rows of every step, in order.
void fill_results(std::span<ParameterStep> steps, StatisticsList& statistics) {
  const at::Device device = statistics.front().device();
  for (at::Tensor& one : statistics) one = one.to(device, /*non_blocking=*/true);
  const at::Tensor all = at::cat(statistics).cpu();
  const double* row = all.data_ptr<double>();
  for (std::size_t i = 0; i < steps.size(); ++i) {
    std::vector<UpdateStatistics> rows;
    for (std::int64_t k = 0; k < statistics[i].size(0); ++k, row += kStatistics) {
      rows.push_back(unpack(row));
    }
    steps[i].result = combine(rows);
    const ParameterStep& step = steps[i];
    const bool stack = is_matrix_rule(*step.rule) &&
                       matrix_shape(step.parameter.sizes(), step.options->fold()).stack;
    if (stack) steps[i].matrices = std::move(rows);
  }
}

}  // namespace

void aten_step(std::span<ParameterStep> steps, bool collect) {
  StatisticsList statistics;
  for (ParameterStep& step : steps) {
    Work work = prepare(step);
    at::Tensor packed;
    if (const auto* adamw = std::get_if<AdamWRule>(step.rule)) {
      packed = step_adamw(work, *adamw, collect);
    } else if (const auto* sgd = std::get_if<SgdRule>(step.rule)) {
      packed = step_sgd(work, *sgd, collect);
    } else {
      packed = step_matrix(work, *matrix_rule(*step.rule), collect);
    }
    if (collect) statistics.push_back(packed);
  }
  if (!statistics.empty()) fill_results(steps, statistics);
}

}  // namespace pion
