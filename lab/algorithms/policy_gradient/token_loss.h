// SPDX-License-Identifier: Apache-2.0
// Stage 3: the loss of every token. l = log pi - log pi_old, rho = e^l.
//
//   policy_gradient  -w A log pi
//   clip    -w min(rho A, clip(rho, 1 - low, 1 + high) A), l clamped to +-20;
//           dual clip c: for A < 0 at most -w c A
//   minirl  -w M sg(pi / mu) A log pi, pi / mu = rho min(pi_old / mu, minirl_cap),
//           M = 0 if A > 0 and rho > 1 + high, or A < 0 and rho < 1 - low
//   gmpo    one number a sequence, s = sign A, tokens clipped before the mean:
//           -A exp(mean_t s min(s l, s clip(l, -gmpo_clip, gmpo_clip)))
#pragma once

#include <torch/torch.h>

#include "lab/algorithms/policy_gradient/estimator_options.h"

namespace pion::lab {

// Off the mask, log-probabilities must be finite but mean nothing. All (rows, T).
struct TokenInputs {
  torch::Tensor logp_new, logp_old, logp_rollout;  // logp_rollout: minirl only
  torch::Tensor advantage;                         // (rows, T), or (rows, 1)
  torch::Tensor weight, mask;
};

struct TokenLoss {
  torch::Tensor value;  // (rows, T); gmpo: (rows)
  // (rows, T) bool, where a clip binds and no gradient flows
  torch::Tensor clipped_low;   // A < 0
  torch::Tensor clipped_high;  // A > 0
  torch::Tensor clipped_dual;  // A < 0, by the dual clip
};

TokenLoss token_loss(const TokenInputs& inputs, const EstimatorOptions& options);

}  // namespace pion::lab
