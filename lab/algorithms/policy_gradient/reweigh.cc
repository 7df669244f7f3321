// SPDX-License-Identifier: Apache-2.0
#include "lab/algorithms/policy_gradient/reweigh.h"

#include <algorithm>

#include "lab/algorithms/policy_gradient/advantage.h"
#include "lab/algorithms/policy_gradient/estimator.h"
#include "lab/algorithms/policy_gradient/kl.h"
#include "lab/algorithms/policy_gradient/require.h"

namespace pion::lab {
namespace {

using torch::Tensor;

double fraction(const Tensor& rows) {
  return rows.to(torch::kFloat64).mean().item<double>();
}

// More than half rejected is not an engine that rounds differently: it is another policy.
void check_rejected(double rejected, double total, double vetoed,
                    const EstimatorOptions& o) {
  require(
      2 * rejected <= total,
      "Estimator::prepare: mismatch correction must keep at least half of the responses, "
      "got ",
      rejected, " of ", total, " rejected (geometric mean of pi_old / mu outside [",
      o.mismatch_low, ", ", o.mismatch_high, "]; ", vetoed, " with a token below ",
      o.mismatch_veto,
      "); compare temperature and top-p of logp_rollout with logp_old's, or widen "
      "mismatch_low and mismatch_high");
}

void correct_mismatch(const Rollout& rollout, const EstimatorOptions& o,
                      Reweighed& result) {
  const Tensor zero = torch::zeros_like(rollout.logp_old);
  const Tensor log_w =
      torch::where(rollout.mask, rollout.logp_old - rollout.logp_rollout, zero)
          .clamp(-kLogRatioLimit, kLogRatioLimit)
          .to(torch::kFloat64);
  const Tensor tokens = rollout.mask.sum(1);
  const Tensor geometric = (log_w.sum(1) / tokens.clamp_min(1)).exp();
  const Tensor vetoed = (log_w.exp() < o.mismatch_veto).any(1);
  const Tensor rejected =
      (geometric < o.mismatch_low) | (geometric > o.mismatch_high) | vetoed;
  const double total = (tokens > 0).sum().item<double>(),
               gone = rejected.sum().item<double>(), veto = vetoed.sum().item<double>();
  check_rejected(gone, total, veto, o);
  result.mask = result.mask & rejected.logical_not().unsqueeze(1);
  result.metrics["mismatch_rejected"] = gone / std::max(1.0, total);
  result.metrics["mismatch_vetoed"] = veto / std::max(1.0, total);
  if (o.mismatch_cap == 0) return;
  result.weight =
      log_w.exp().clamp_max(o.mismatch_cap).to(rollout.logp_old.scalar_type());
  result.metrics["mismatch_weight"] =
      torch::where(result.mask, result.weight, zero).sum().item<double>() /
      std::max(1.0, result.mask.sum().item<double>());
}

}  // namespace

Tensor mixed_groups(const Rollout& rollout, FilterMetric metric) {
  const bool by_reward = metric == FilterMetric::kReward;
  const Tensor& values = by_reward ? rollout.reward : rollout.correct;
  const Tensor& group = rollout.group;
  require(values.defined() && values.dim() == 1 &&
              (by_reward ? values.is_floating_point()
                         : values.scalar_type() == torch::kBool) &&
              group.defined() && group.sizes() == values.sizes() &&
              group.scalar_type() == torch::kInt64,
          "mixed_groups: ",
          by_reward ? "reward must be (B) floating" : "correct must be (B) bool",
          " and group (B) i64");
  const Tensor numbers = values.cpu().to(torch::kFloat64).contiguous();
  const double* value = numbers.data_ptr<double>();
  Tensor mixed = torch::zeros(values.sizes(), torch::kBool);
  for (const auto& rows : rows_of_groups(group)) {
    const bool differs = std::any_of(rows.begin(), rows.end(), [&](std::int64_t row) {
      return value[row] != value[rows.front()];
    });
    for (const std::int64_t row : rows) mixed.data_ptr<bool>()[row] = differs;
  }
  return mixed.to(values.device());
}

Reweighed reweigh(const Rollout& rollout, const EstimatorOptions& o) {
  Reweighed result{rollout.mask, torch::ones_like(rollout.logp_old), {}};
  if (o.drop_truncated) {
    result.mask = result.mask & rollout.truncated.logical_not().unsqueeze(1);
    result.metrics["dropped_truncated"] = fraction(rollout.truncated);
  }
  if (o.dynamic_sampling) {
    const Tensor mixed = mixed_groups(rollout, o.filter_metric);
    const Tensor right = mixed.cpu();
    const auto groups = rows_of_groups(rollout.group);
    double dropped = 0;
    for (const auto& rows : groups) dropped += !right.data_ptr<bool>()[rows.front()];
    result.mask = result.mask & mixed.unsqueeze(1);
    result.metrics["dropped_groups"] = dropped / static_cast<double>(groups.size());
  }
  if (o.mismatch_correction) correct_mismatch(rollout, o, result);
  return result;
}

}  // namespace pion::lab
