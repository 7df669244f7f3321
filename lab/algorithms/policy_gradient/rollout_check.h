// SPDX-License-Identifier: Apache-2.0
// What a rollout must be before anything is computed from it.
#pragma once

#include <torch/torch.h>

#include "lab/algorithms/policy_gradient/estimator_options.h"
#include "lab/algorithms/policy_gradient/rollout.h"

namespace pion::lab {

// Throws std::invalid_argument that names field, row and token.
void check_rollout(const Rollout& rollout, const EstimatorOptions& options);

// `x` finite wherever `mask` is true; both (rows, T). `response[i]` is the row of the
// rollout that row i is; undefined: the same.
void check_finite(const char* function, const char* name, const torch::Tensor& x,
                  const torch::Tensor& mask, const torch::Tensor& response = {});

}  // namespace pion::lab
