// SPDX-License-Identifier: Apache-2.0
// Stage 4: token losses to one number. The denominators are those of the whole optimizer
// step, whatever part of it is aggregated: dividing each micro-batch by its own count is
// another loss.
#pragma once

#include <torch/torch.h>

#include <cstdint>

#include "lab/algorithms/policy_gradient/estimator_options.h"

namespace pion::lab {

struct Denominator {
  std::int64_t tokens = 0;     // true entries of the mask
  std::int64_t sequences = 0;  // rows with at least one
};

// Of all rows that make one optimizer step. mask: (B, T) bool.
Denominator denominator_of(const torch::Tensor& mask);

// token_loss, mask: (rows, T). Throws std::invalid_argument if the mask has tokens and
// the denominator has none.
torch::Tensor aggregate(const torch::Tensor& token_loss, const torch::Tensor& mask,
                        Aggregation mode, const Denominator& denominator,
                        double length_constant);

// For a loss that has one number a sequence, (rows): the mean over sequences.
torch::Tensor aggregate_sequences(const torch::Tensor& sequence_loss,
                                  const torch::Tensor& mask,
                                  const Denominator& denominator);

}  // namespace pion::lab
