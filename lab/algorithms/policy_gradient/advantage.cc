// SPDX-License-Identifier: Apache-2.0
#include "lab/algorithms/policy_gradient/advantage.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>

namespace pion::lab {
namespace {

using torch::Tensor;
using Rows = std::vector<std::int64_t>;
using Values = std::vector<double>;

Values values_of(const Tensor& x) {
  const Tensor y = x.to(torch::kCPU, torch::kFloat64).contiguous();
  return {y.data_ptr<double>(), y.data_ptr<double>() + y.numel()};
}

double mean_of(const Values& x) {
  double sum = 0;
  for (const double value : x) sum += value;
  return x.empty() ? 0 : sum / static_cast<double>(x.size());
}

double variance_of(const Values& x, double mean, bool sample) {
  double sum = 0;
  for (const double value : x) sum += (value - mean) * (value - mean);
  return sum / static_cast<double>(x.size() - (sample ? 1 : 0));
}

bool all_equal(const Values& x) {
  return std::adjacent_find(x.begin(), x.end(), std::not_equal_to<>()) == x.end();
}

// Log-probability of old over reference, 0 off the mask: (B, T).
Tensor k1_tokens(const Rollout& rollout) {
  const Tensor d =
      rollout.logp_old.to(torch::kFloat64) - rollout.logp_ref.to(torch::kFloat64);
  return torch::where(rollout.mask, d, torch::zeros_like(d)).cpu();
}

// Advantages of one group of rewards.
Values of_group(const Values& reward, const EstimatorOptions& o) {
  const std::size_t n = reward.size();
  Values a(n, 0.0);
  if (n == 1 && o.advantage != AdvantageKind::kDrGrpo) return reward;
  if (all_equal(reward)) return a;
  const double mean = mean_of(reward);
  double scale = 1;
  if (o.advantage == AdvantageKind::kRloo)
    scale = static_cast<double>(n) / static_cast<double>(n - 1);
  if (o.advantage == AdvantageKind::kGrpo)
    scale = 1 / (std::sqrt(variance_of(reward, mean, o.sample_std)) + o.std_floor);
  for (std::size_t i = 0; i < n; ++i) a[i] = scale * (reward[i] - mean);
  return a;
}

Values by_group(const Values& reward, const Tensor& group, const EstimatorOptions& o) {
  Values a(reward.size());
  for (const Rows& rows : rows_of_groups(group)) {
    Values own;
    for (const std::int64_t row : rows)
      own.push_back(reward[static_cast<std::size_t>(row)]);
    const Values result = of_group(own, o);
    for (std::size_t i = 0; i < rows.size(); ++i)
      a[static_cast<std::size_t>(rows[i])] = result[i];
  }
  return a;
}

// Returns-to-go of token rewards, whitened over all tokens of the batch: (B, T).
Tensor whitened_returns(const Values& reward, const Rollout& rollout,
                        const EstimatorOptions& o) {
  const Tensor mask = rollout.mask.cpu().contiguous();
  const std::int64_t rows = mask.size(0), columns = mask.size(1);
  Tensor returns = torch::zeros({rows, columns}, torch::kFloat64);
  Tensor k1 = torch::zeros({rows, columns}, torch::kFloat64);
  if (o.kl == KlKind::kK1InReward) k1 = o.kl_coefficient * k1_tokens(rollout);
  const auto m = mask.accessor<bool, 2>();
  const auto cost = k1.accessor<double, 2>();
  auto g = returns.accessor<double, 2>();
  Values all;
  for (std::int64_t i = 0; i < rows; ++i) {
    double sum = reward[static_cast<std::size_t>(i)];
    for (std::int64_t t = columns - 1; t >= 0; --t) {
      if (!m[i][t]) continue;
      sum -= cost[i][t];
      g[i][t] = sum;
      all.push_back(sum);
    }
  }
  if (all_equal(all)) return torch::zeros_like(returns);
  const double mean = mean_of(all);
  const double scale = 1 / std::sqrt(variance_of(all, mean, o.sample_std) + o.std_floor);
  return torch::where(mask, (returns - mean) * scale, torch::zeros_like(returns));
}

double zero_spread(const Values& reward, const Tensor& group) {
  const auto groups = rows_of_groups(group);
  double count = 0;
  for (const Rows& rows : groups) {
    Values own;
    for (const std::int64_t row : rows)
      own.push_back(reward[static_cast<std::size_t>(row)]);
    count += all_equal(own);
  }
  return groups.empty() ? 0 : count / static_cast<double>(groups.size());
}

Tensor tensor_of(const Values& x) { return torch::tensor(x, torch::kFloat64); }

// Adds the overlong penalty and, for one number a sequence, the KL; logs both.
void shape_reward(Values& reward, const Rollout& rollout, const EstimatorOptions& o,
                  Metrics& metrics) {
  const Values length = values_of(rollout.mask.sum(1));
  metrics["response_length"] = mean_of(length);
  if (o.overlong_limit > 0) {
    Values penalty;
    for (std::size_t i = 0; i < reward.size(); ++i) {
      penalty.push_back(overlong_penalty(static_cast<std::int64_t>(length[i]),
                                         o.overlong_limit, o.overlong_cache));
      reward[i] += penalty[i];
    }
    metrics["overlong_penalty"] = mean_of(penalty);
  }
  if (o.kl != KlKind::kK1InReward) return;
  const Values k1 = values_of(k1_tokens(rollout).sum(1));
  metrics["k1_in_reward"] = mean_of(k1);
  if (o.advantage == AdvantageKind::kReinforcePlusPlus ||
      o.advantage == AdvantageKind::kReinforcePlusPlusBaseline)
    return;  // token by token
  for (std::size_t i = 0; i < reward.size(); ++i) reward[i] -= o.kl_coefficient * k1[i];
}

}  // namespace

double overlong_penalty(std::int64_t length, std::int64_t limit, std::int64_t cache) {
  if (length <= limit - cache) return 0;
  if (length >= limit) return -1;
  return static_cast<double>(limit - cache - length) / static_cast<double>(cache);
}

std::vector<Rows> rows_of_groups(const Tensor& group) {
  const Tensor ids = group.cpu().contiguous();
  std::vector<Rows> groups;
  std::unordered_map<std::int64_t, std::size_t> place;
  for (std::int64_t i = 0; i < ids.numel(); ++i) {
    const auto [at, added] =
        place.emplace(ids.data_ptr<std::int64_t>()[i], groups.size());
    if (added) groups.emplace_back();
    groups[at->second].push_back(i);
  }
  return groups;
}

Advantages advantages(const Rollout& rollout, const EstimatorOptions& o,
                      double baseline) {
  Advantages result;
  result.next_baseline = baseline;
  Values reward = values_of(rollout.reward);
  Metrics& metrics = result.metrics;
  metrics["reward"] = mean_of(reward);
  if (rollout.group.defined())
    metrics["zero_spread_groups"] = zero_spread(reward, rollout.group);
  if (rollout.truncated.defined())
    metrics["truncated"] = mean_of(values_of(rollout.truncated));
  shape_reward(reward, rollout, o, metrics);
  switch (o.advantage) {
    case AdvantageKind::kReinforce: {
      const double c = o.reinforce_baseline, mean = mean_of(reward);
      for (double& value : reward) value -= baseline;
      if (c > 0) result.next_baseline = c * baseline + (1 - c) * mean;
      result.value = tensor_of(reward);
      break;
    }
    case AdvantageKind::kReinforcePlusPlus:
      result.value = whitened_returns(reward, rollout, o);
      break;
    case AdvantageKind::kReinforcePlusPlusBaseline:
      result.value = whitened_returns(by_group(reward, rollout.group, o), rollout, o);
      break;
    default:
      result.value = tensor_of(by_group(reward, rollout.group, o));
  }
  metrics["advantage_abs"] = result.value.dim() == 2
                                 ? result.value.abs().sum().item<double>() /
                                       std::max(1.0, rollout.mask.sum().item<double>())
                                 : result.value.abs().mean().item<double>();
  return result;
}

}  // namespace pion::lab
