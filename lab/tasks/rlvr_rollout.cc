// SPDX-License-Identifier: Apache-2.0
#include "lab/tasks/rlvr_rollout.h"

#include <algorithm>

#include "lab/algorithms/policy_gradient/estimator.h"

namespace pion::lab {
namespace {

using torch::Tensor;

// Rewards and verdicts of a batch; groups are numbered from `first_group`.
Rollout judged(const AnswerBatch& batch, std::int64_t samples, std::int64_t first_group) {
  const std::int64_t rows = batch.rows();
  Rollout rollout;
  rollout.logp_old = batch.generation.logprobs;
  rollout.logp_rollout = batch.generation.logprobs;
  rollout.mask = batch.generation.mask;
  rollout.truncated = batch.generation.truncated;
  rollout.reward = torch::empty({rows}, torch::kFloat32);
  rollout.correct = torch::empty({rows}, torch::kBool);
  for (std::int64_t row = 0; row < rows; ++row) {
    rollout.reward.data_ptr<float>()[row] =
        static_cast<float>(batch.verdicts[row].reward);
    rollout.correct.data_ptr<bool>()[row] = batch.verdicts[row].correct;
  }
  rollout.group = first_group + torch::arange(rows).div(samples, "floor");
  return rollout;
}

double groups_without_spread(const Tensor& reward, std::int64_t samples) {
  const Tensor groups = reward.view({-1, samples});
  return (groups.amax(1) == groups.amin(1)).sum().item<double>();
}

Rollout rows_of(const Rollout& rollout, const Tensor& rows) {
  Rollout part;
  part.reward = rollout.reward.index_select(0, rows);
  part.correct = rollout.correct.index_select(0, rows);
  part.group = rollout.group.index_select(0, rows);
  return part;
}

}  // namespace

GatheredRollout gather_rollout(const CausalLm& model, const ProblemSet& problems,
                               Verifier& verifier, const RlvrOptions& options,
                               const std::function<Problem()>& next,
                               at::Generator& generator) {
  const SamplingOptions sampling{.max_new_tokens = options.max_new_tokens,
                                 .temperature = options.temperature,
                                 .top_k = options.top_k,
                                 .top_p = options.top_p,
                                 .stop_tokens = problems.stop_tokens()};
  GatheredRollout result;
  std::vector<Generation> generations;
  std::vector<Tensor> rewards, correct, groups;
  double tokens = 0, surprise = 0;
  for (std::int64_t missing = options.prompts, round = 0;
       missing > 0 && round <= options.refills; ++round) {
    std::vector<Problem> drawn;
    for (std::int64_t i = 0; i < missing; ++i) drawn.push_back(next());
    const AnswerBatch batch =
        answer_problems(model, problems.vocabulary(), verifier, drawn, options.samples,
                        sampling, generator);
    const Rollout rollout =
        judged(batch, options.samples, static_cast<std::int64_t>(result.groups));
    result.rates.add(batch);
    result.refills = round;
    result.groups += static_cast<double>(missing);
    result.zero_spread_groups += groups_without_spread(rollout.reward, options.samples);
    result.generation_seconds += batch.generation_seconds;
    result.verification_seconds += batch.verification_seconds;
    tokens += rollout.mask.sum().item<double>();
    surprise -= rollout.logp_old.sum(at::kDouble).item<double>();
    Tensor keep = torch::arange(batch.rows());
    if (options.estimator.dynamic_sampling) {
      const Tensor mixed = mixed_groups(rollout, options.estimator.filter_metric);
      keep = mixed.nonzero().squeeze(1);
      const Tensor graded = mixed_groups(rollout, FilterMetric::kReward);
      result.graded_groups +=
          (graded & ~mixed).sum().item<double>() / static_cast<double>(options.samples);
    }
    const std::int64_t kept = keep.size(0) / options.samples;
    result.rejected_groups += static_cast<double>(missing - kept);
    missing -= kept;
    if (kept == 0) continue;
    generations.push_back(selected(batch.generation, keep));
    const Rollout part = rows_of(rollout, keep);
    rewards.push_back(part.reward), correct.push_back(part.correct);
    groups.push_back(part.group);
  }
  result.rates = result.rates.mean();
  result.entropy = surprise / std::max(tokens, 1.0);
  if (generations.empty()) return result;
  result.generation = joined(generations);
  result.rollout = {.logp_old = result.generation.logprobs,
                    .logp_rollout = result.generation.logprobs,
                    .logp_ref = {},
                    .mask = result.generation.mask,
                    .reward = torch::cat(rewards),
                    .correct = torch::cat(correct),
                    .group = torch::cat(groups),
                    .truncated = result.generation.truncated};
  return result;
}

}  // namespace pion::lab
