// SPDX-License-Identifier: Apache-2.0
// Stage 2: which responses and tokens count, and how much. Baselines are left as they
// are: what leaves the loss stays in the statistics of its group.
//
//   drop_truncated       DAPO: truncated responses leave the loss
//   dynamic_sampling     DAPO: groups all right or all wrong leave it
//   mismatch_correction  w = pi_old / mu a token, log w clamped to +-20. A response
//                        leaves if the geometric mean of w is outside [low, high] or a
//                        w < veto; tokens of the others weigh min(w, cap).
//                        Source: hkust-nlp/KernelGYM.
#pragma once

#include <torch/torch.h>

#include "lab/algorithms/policy_gradient/estimator_options.h"
#include "lab/algorithms/policy_gradient/rollout.h"

namespace pion::lab {

struct Reweighed {
  torch::Tensor mask;    // (B, T) bool
  torch::Tensor weight;  // (B, T), dtype of logp_old, 1 off the mask
  Metrics metrics;       // dropped_truncated, dropped_groups, mismatch_rejected,
                         // mismatch_vetoed, mismatch_weight: where they are switched on
};

// Throws std::invalid_argument if mismatch correction rejects more than half.
Reweighed reweigh(const Rollout& rollout, const EstimatorOptions& options);

}  // namespace pion::lab
