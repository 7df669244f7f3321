// SPDX-License-Identifier: Apache-2.0
// Gathers what one update of reinforcement learning is computed from.
#pragma once

#include <functional>

#include "lab/algorithms/policy_gradient/rollout.h"
#include "lab/tasks/answering.h"
#include "lab/tasks/rlvr_options.h"

namespace pion::lab {

struct GatheredRollout {
  Generation generation;  // of the answers that are trained on
  Rollout rollout;        // logp_old as generation gives it; logp_ref undefined
  AnswerRates rates;      // of all answers, also those of rejected groups
  double entropy = 0;  // nats a token: minus the mean log-probability of what was sampled
  double groups = 0, zero_spread_groups = 0;  // of all; those whose rewards are all equal
  double rejected_groups = 0;                 // by dynamic sampling
  double graded_groups = 0;                   // of those: whose rewards differ
  std::int64_t refills = 0;
  double generation_seconds = 0, verification_seconds = 0;

  std::int64_t rows() const {
    return rollout.reward.defined() ? rollout.reward.size(0) : 0;
  }
};

// Answers `options.prompts` problems, `options.samples` times each. With dynamic sampling
// groups that the estimator's filter_metric rejects are replaced by others, for
// `options.refills` rounds at most; what is left then may be fewer groups, or none.
// `next` draws a problem.
GatheredRollout gather_rollout(const CausalLm& model, const ProblemSet& problems,
                               Verifier& verifier, const RlvrOptions& options,
                               const std::function<Problem()>& next,
                               at::Generator& generator);

}  // namespace pion::lab
