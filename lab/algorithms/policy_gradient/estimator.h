// SPDX-License-Identifier: Apache-2.0
// The pipeline of all policy-gradient methods here:
//
//   rollout -> advantage -> reweigh (masks, weights) -> token loss -> aggregate -> scalar
//
// Definitions: REINFORCE; REINFORCE++ arXiv:2501.03262; RLOO arXiv:2402.14740; GRPO
// arXiv:2402.03300; Dr. GRPO arXiv:2503.20783; DAPO arXiv:2503.14476; GMPO
// arXiv:2507.20673; MiniRL arXiv:2512.01374. One file a stage: advantage.h, reweigh.h,
// token_loss.h, aggregate.h.
#pragma once

#include <torch/torch.h>

#include "lab/algorithms/policy_gradient/estimator_options.h"
#include "lab/algorithms/policy_gradient/rollout.h"

namespace pion::lab {

// A whole batch, prepared once: group statistics, masks, weights, so that what is
// computed later in pieces adds up. Detached.
struct PreparedBatch {
  torch::Tensor advantage;  // (B), or (B, T) for REINFORCE++; dtype of logp_old
  torch::Tensor mask;       // (B, T) bool, after filters
  torch::Tensor weight;     // (B, T), ones by default
  torch::Tensor signal;     // (B) bool: the row can move the weights
  bool no_signal = false;   // no row can: the caller takes no step. The same holds for an
  // optimizer step none of whose rows has a signal: a scale-free
  // optimizer would make a full step of rounding noise.
  Metrics metrics;  // means over the batch, ready for the log
};

class Estimator {
 public:
  explicit Estimator(const EstimatorOptions& options);

  // Advances the moving-average baseline, after this batch's advantages. Throws
  // std::invalid_argument if a field that the options need is undefined, has a wrong
  // shape or dtype, or holds a non-finite value (names the row), or if mismatch
  // correction rejects more than half of the responses. Nothing has changed when it
  // throws.
  PreparedBatch prepare(const Rollout& rollout);

  // The share of the loss that `rows` (i64) contribute when `minibatch` (i64, a superset)
  // is one optimizer step: over disjoint `rows` the shares add up to the loss of the
  // minibatch. logp_new: (rows, T), differentiable; read only where the mask is true.
  // Throws if it is not finite there, naming the row. Adds sums over tokens to `sums`:
  // see estimator_metrics.
  torch::Tensor loss(const torch::Tensor& logp_new, const Rollout& rollout,
                     const PreparedBatch& batch, const torch::Tensor& rows,
                     const torch::Tensor& minibatch, Metrics& sums) const;

  const EstimatorOptions& options() const { return options_; }
  double baseline() const { return baseline_; }  // state to checkpoint
  void set_baseline(double value) { baseline_ = value; }

 private:
  EstimatorOptions options_;
  double baseline_ = 0;
};

// The rows (B, bool) of groups whose values of the metric are not all equal: what dynamic
// sampling keeps. A caller that refills asks before `prepare`, up to its own limit. Reads
// rollout.group, and rollout.correct or rollout.reward.
torch::Tensor mixed_groups(const Rollout& rollout, FilterMetric metric);

// Means of what `loss` summed: clip_fraction_low, clip_fraction_high (and _dual), ratio,
// k3_old, k3_rollout and k3_ref (where these are defined), policy_loss, kl_loss.
Metrics estimator_metrics(const Metrics& sums);

}  // namespace pion::lab
