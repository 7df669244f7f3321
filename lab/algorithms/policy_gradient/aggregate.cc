// SPDX-License-Identifier: Apache-2.0
#include "lab/algorithms/policy_gradient/aggregate.h"

#include <algorithm>
#include <stdexcept>

#include "lab/algorithms/policy_gradient/require.h"

namespace pion::lab {
namespace {

using torch::Tensor;

void check(const Tensor& mask, const Denominator& denominator) {
  const Denominator own = denominator_of(mask);
  require(own.tokens <= denominator.tokens && own.sequences <= denominator.sequences,
          "aggregate: denominator must count the whole optimizer step, at least ",
          own.tokens, " tokens and ", own.sequences, " sequences, got ",
          denominator.tokens, " and ", denominator.sequences);
}

double at_least_one(std::int64_t count) {
  return static_cast<double>(std::max<std::int64_t>(1, count));
}

}  // namespace

Denominator denominator_of(const Tensor& mask) {
  return {mask.sum().item<std::int64_t>(), mask.any(1).sum().item<std::int64_t>()};
}

Tensor aggregate(const Tensor& token_loss, const Tensor& mask, Aggregation mode,
                 const Denominator& denominator, double length_constant) {
  check(mask, denominator);
  const Tensor masked = torch::where(mask, token_loss, torch::zeros_like(token_loss));
  const double sequences = at_least_one(denominator.sequences);
  switch (mode) {
    case Aggregation::kTokenMean:
      return masked.sum() / at_least_one(denominator.tokens);
    case Aggregation::kSeqMeanTokenMean:
      return (masked.sum(1) / mask.sum(1).clamp_min(1)).sum() / sequences;
    case Aggregation::kSeqMeanTokenSum:
      return masked.sum() / sequences;
    case Aggregation::kSeqMeanTokenSumNorm:
      return masked.sum() / sequences / length_constant;
  }
  throw std::invalid_argument("aggregate: unknown mode");
}

Tensor aggregate_sequences(const Tensor& sequence_loss, const Tensor& mask,
                           const Denominator& denominator) {
  check(mask, denominator);
  return torch::where(mask.any(1), sequence_loss, torch::zeros_like(sequence_loss))
             .sum() /
         at_least_one(denominator.sequences);
}

}  // namespace pion::lab
