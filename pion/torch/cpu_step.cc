// SPDX-License-Identifier: Apache-2.0
// Built with OpenMP, without which at::parallel_for runs on one thread.
#include "pion/torch/cpu_step.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cmath>

#include "pion/optim/adamw.h"
#include "pion/optim/sgd.h"
#include "pion/torch/torch_error.h"

namespace pion {
namespace {

static_assert(sizeof(bfloat16) == sizeof(c10::BFloat16));

// A parameter with its tensors made contiguous; the results of its matrices.
struct Prepared {
  ParameterStep* step;
  at::Tensor weight;                      // the parameter, or a contiguous copy of it
  at::Tensor gradient;                    // contiguous; f32 or bf16, f64 for f64 weights
  MatrixShape shape;                      // {1, 1, numel} under element-wise rules
  std::vector<UpdateStatistics> results;  // one per matrix
};

// One matrix of a stack, or one whole parameter: what a thread takes at a time.
struct Piece {
  Prepared* of;
  std::int64_t index;
  std::int64_t numel() const { return of->shape.rows * of->shape.cols; }
  template <class T>
  T* at(const at::Tensor& tensor) const {
    return tensor.defined() ? static_cast<T*>(tensor.data_ptr()) + index * numel()
                            : nullptr;
  }
};

template <class T, class G>
UpdateStatistics apply_rule(const Piece& piece, T* weight, CpuWorkspace& workspace) {
  const ParameterStep& step = *piece.of->step;
  const ParameterState& state = *step.state;
  const auto n = static_cast<std::size_t>(piece.numel());
  const G* gradient = piece.at<const G>(piece.of->gradient);
  const std::int64_t t = *state.step.data_ptr<std::int64_t>() + 1;
  if (const auto* adamw = std::get_if<AdamWRule>(step.rule)) {
    return adamw_step<T, G>({weight, n}, {gradient, n}, {piece.at<T>(state.exp_avg), n},
                            {piece.at<T>(state.exp_avg_sq), n}, t, *adamw);
  }
  T* momentum = piece.at<T>(state.momentum_buffer);
  if (const auto* sgd = std::get_if<SgdRule>(step.rule)) {
    return sgd_step<T, G>({weight, n}, {gradient, n}, {momentum, momentum ? n : 0}, t,
                          *sgd);
  }
  const auto [count, rows, cols] = piece.of->shape;
  return matrix_step<T, G>(view(weight, rows, cols), view(gradient, rows, cols),
                           view(momentum, rows, cols), *step.rule, step.options->layout(),
                           workspace.matrix);
}

// A bf16 weight: steps the master copy or the widened weight, then rounds.
template <class G>
UpdateStatistics step_bfloat16(const Piece& piece, CpuWorkspace& workspace) {
  const ParameterStep& step = *piece.of->step;
  const auto n = static_cast<std::size_t>(piece.numel());
  bfloat16* weight = piece.at<bfloat16>(piece.of->weight);
  float* wide = nullptr;
  const LowPrecision mode = step.options->low_precision();
  if (mode == LowPrecision::kMasterCopy) {
    wide = piece.at<float>(step.state->master);
    // where somebody else has written the weight since, the weight counts
    for (std::size_t i = 0; i < n; ++i) {
      if (bfloat16(wide[i]).bits != weight[i].bits) wide[i] = weight[i];
    }
  } else {
    workspace.weight.assign(weight, weight + n);
    wide = workspace.weight.data();
  }
  const UpdateStatistics result = apply_rule<float, G>(piece, wide, workspace);
  if (result.skipped) return result;
  if (mode == LowPrecision::kStochastic) {
    round_stochastically({wide, n}, {weight, n}, step.seed, piece.index * n);
  } else {
    round_to_nearest({wide, n}, {weight, n});
  }
  return result;
}

UpdateStatistics step_piece(const Piece& piece, CpuWorkspace& workspace) {
  const bool narrow_gradient = piece.of->gradient.scalar_type() == at::kBFloat16;
  switch (piece.of->weight.scalar_type()) {
    case at::kDouble:
      return apply_rule<double, double>(piece, piece.at<double>(piece.of->weight),
                                        workspace);
    case at::kFloat:
      return narrow_gradient ? apply_rule<float, bfloat16>(
                                   piece, piece.at<float>(piece.of->weight), workspace)
                             : apply_rule<float, float>(
                                   piece, piece.at<float>(piece.of->weight), workspace);
    default:
      return narrow_gradient ? step_bfloat16<bfloat16>(piece, workspace)
                             : step_bfloat16<float>(piece, workspace);
  }
}

Prepared prepare(ParameterStep& step) {
  Prepared result{&step, step.parameter.detach().contiguous(), {}, {1, 1, 0}, {}};
  const at::ScalarType work = work_type(step.parameter);
  at::Tensor gradient = step.gradient;
  const bool as_it_is = gradient.scalar_type() == work ||
                        (work == at::kFloat && gradient.scalar_type() == at::kBFloat16);
  if (!as_it_is) gradient = gradient.to(work);
  if (step.options->maximize()) gradient = gradient.neg();
  result.gradient = gradient.contiguous();
  result.shape = is_matrix_rule(*step.rule)
                     ? matrix_shape(step.parameter.sizes(), step.options->fold())
                     : MatrixShape{1, 1, step.parameter.numel()};
  result.results.resize(result.shape.count);
  return result;
}

// A stack is skipped as a whole; a single matrix is looked at by its own step.
bool skip_stack(const Prepared& stack) {
  return stack.shape.count > 1 &&
         nonfinite_policy(*stack.step->rule) == NonFinite::kSkip &&
         !at::isfinite(stack.gradient).all().item<bool>();
}

// The statistics of a stack, of those of its matrices.
UpdateStatistics combine(const std::vector<UpdateStatistics>& parts) {
  if (parts.size() == 1) return parts.front();
  const double count = static_cast<double>(parts.size());
  UpdateStatistics sum;
  double gradient = 0, update = 0;
  for (const UpdateStatistics& part : parts) {
    sum.skipped |= part.skipped;
    gradient += part.gradient_norm * part.gradient_norm;
    update += part.update_rms * part.update_rms;
    sum.directions_passed += part.directions_passed;
    sum.directions += part.directions;
    sum.stable_rank += part.stable_rank / count;
    sum.energy_kept += part.energy_kept / count;
    sum.sigma_max = std::max(sum.sigma_max, part.sigma_max);
    sum.head_spread = std::max(sum.head_spread, part.head_spread);
    sum.half_pass = std::max(sum.half_pass, part.half_pass);
  }
  sum.gradient_norm = std::sqrt(gradient);
  sum.update_rms = std::sqrt(update / count);
  return sum;
}

void finish(Prepared& done) {
  ParameterStep& step = *done.step;
  step.result = combine(done.results);
  if (step.result.skipped) return;
  if (!done.weight.is_alias_of(step.parameter))
    step.parameter.detach().copy_(done.weight);
  ++*step.state->step.data_ptr<std::int64_t>();
}

}  // namespace

void cpu_step(std::span<ParameterStep> steps, bool collect_spectrum,
              std::vector<CpuWorkspace>& workspaces) {
  std::vector<Prepared> prepared;
  prepared.reserve(steps.size());
  std::vector<Piece> pieces;
  for (ParameterStep& step : steps) {
    Prepared& next = prepared.emplace_back(prepare(step));
    if (skip_stack(next)) {
      next.results.assign(1, UpdateStatistics{.skipped = true});
      continue;
    }
    for (std::int64_t i = 0; i < next.shape.count; ++i) pieces.push_back({&next, i});
  }
  // the largest first, so that no thread is left with a large one at the end
  std::stable_sort(pieces.begin(), pieces.end(),
                   [](const Piece& a, const Piece& b) { return a.numel() > b.numel(); });

  const auto threads = std::min<std::size_t>(at::get_num_threads(), pieces.size());
  if (workspaces.size() < threads) workspaces.resize(threads);
  std::atomic<std::size_t> next_piece{0};
  at::parallel_for(
      0, static_cast<std::int64_t>(threads), 1, [&](std::int64_t from, std::int64_t to) {
        for (std::int64_t thread = from; thread < to; ++thread) {
          CpuWorkspace& workspace = workspaces[thread];
          workspace.matrix.collect_spectrum = collect_spectrum;
          for (std::size_t i; (i = next_piece.fetch_add(1)) < pieces.size();) {
            pieces[i].of->results[pieces[i].index] = step_piece(pieces[i], workspace);
          }
        }
      });
  for (Prepared& done : prepared) finish(done);
}

}  // namespace pion
