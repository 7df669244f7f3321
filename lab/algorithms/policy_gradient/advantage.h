// SPDX-License-Identifier: Apache-2.0
// Stage 1: rewards to advantages. Group statistics are of the whole batch, in double.
//
//   R          reward, + DAPO's overlong penalty, - beta sum_t k1_t with kK1InReward
//   reinforce  R_i - b, then b <- c b + (1 - c) mean R
//   rloo       R_i - mean of the other N - 1 of the group
//   grpo       (R_i - mean) / (std + std_floor)
//   dr_grpo    R_i - mean
//   reinforce_plus_plus  token returns G_t = sum_{s >= t} r_s, where r is R at the last
//              token and - beta k1_s at each; (G_t - mean) / sqrt(var + std_floor) over
//              all tokens of the batch
//
// A group whose rewards are all equal has A = 0 exactly, not a rounding error over a
// floor. A group of one keeps its reward with rloo, grpo and
// reinforce_plus_plus_baseline, as in verl.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <vector>

#include "lab/algorithms/policy_gradient/estimator_options.h"
#include "lab/algorithms/policy_gradient/rollout.h"

namespace pion::lab {

struct Advantages {
  torch::Tensor value;  // (B) or (B, T), f64, on the CPU
  double next_baseline = 0;
  // reward, zero_spread_groups, response_length, truncated, advantage_abs,
  // overlong_penalty, k1_in_reward: where they are defined
  Metrics metrics;
};

// `baseline` is read by kReinforce only.
Advantages advantages(const Rollout& rollout, const EstimatorOptions& options,
                      double baseline);

// DAPO's soft penalty of a response of `length` tokens:
//   0 up to limit - cache, (limit - cache - length) / cache up to limit, -1 beyond.
double overlong_penalty(std::int64_t length, std::int64_t limit, std::int64_t cache);

// The rows of every group, in the order in which groups appear.
std::vector<std::vector<std::int64_t>> rows_of_groups(const torch::Tensor& group);

}  // namespace pion::lab
