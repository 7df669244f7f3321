// SPDX-License-Identifier: Apache-2.0
// The pipeline of all policy-gradient methods here:
//
//   rollout -> advantage -> reweigh (masks, weights) -> token loss -> aggregate -> scalar
//
// Definitions: REINFORCE; RLOO arXiv:2402.14740; GRPO arXiv:2402.03300; Dr. GRPO
// arXiv:2503.20783; DAPO arXiv:2503.14476; GMPO arXiv:2507.20673; MiniRL arXiv:2512.01374.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <string>

#include "lab/algorithms/policy_gradient/rollout.h"

namespace pion::lab {

enum class AdvantageKind { kReinforce, kReinforcePlusPlus, kRloo, kGrpo, kDrGrpo };
enum class LossKind { kPolicyGradient, kClip, kGmpo, kMiniRl };
enum class Aggregation { kTokenMean, kSeqMeanTokenMean, kSeqMeanTokenSum, kSeqMeanTokenSumNorm };
enum class KlKind { kNone, kK1InReward, kK2, kK3 };

struct EstimatorOptions {
  AdvantageKind advantage = AdvantageKind::kGrpo;
  LossKind loss = LossKind::kClip;
  Aggregation aggregation = Aggregation::kSeqMeanTokenMean;
  KlKind kl = KlKind::kNone;
  double kl_coefficient = 0.0;       // beta
  double clip_low = 0.2;             // epsilon below 1
  double clip_high = 0.2;            // and above; DAPO 0.28
  double gmpo_clip = 0.4;            // on token log-ratios
  double dual_clip = 0.0;            // c > 1, 0: off
  double std_floor = 1e-6;           // delta
  bool sample_std = true;            // ddof 1; false: ddof 0
  double length_constant = 0.0;      // denominator of kSeqMeanTokenSumNorm, > 0 there
  double reinforce_baseline = 0.0;   // decay of a moving average; 0: no baseline
  bool drop_truncated = false;       // DAPO: overlong responses leave the loss
  std::int64_t overlong_limit = 0;   // DAPO's soft penalty: Lmax; 0: off
  std::int64_t overlong_cache = 0;   // and Lc
  bool dynamic_sampling = false;     // DAPO: only groups neither all right nor all wrong
  bool mismatch_correction = false;  // truncated importance weight, geometric rejection, veto
  double mismatch_cap = 2.0;         // of the token weight
  double mismatch_low = 0.999, mismatch_high = 1.001;  // geometric mean of a sequence
  double mismatch_veto = 1e-4;       // of one token
};

// Throws std::invalid_argument for combinations without a meaning: GMPO with an aggregation
// other than the default, MiniRL without logp_rollout, ...; the message names both.
void check_estimator(const EstimatorOptions& options);

// Named starting points: "reinforce", "rloo", "grpo", "dr_grpo", "dapo", "gmpo", "minirl".
EstimatorOptions estimator_named(const std::string& name);

// A whole batch, prepared once: group statistics, masks, weights and the denominators of the
// optimizer batch, so that micro-batches add up to the same gradient.
struct PreparedBatch {
  torch::Tensor advantage;  // (B) f32 or (B, T), detached
  torch::Tensor mask;       // (B, T) bool after filters
  torch::Tensor weight;     // (B, T) f32, detached; ones by default
  bool no_signal = false;   // every advantage is 0: the caller takes no step
  Metrics metrics;
};

class Estimator {
 public:
  explicit Estimator(const EstimatorOptions& options);

  PreparedBatch prepare(const Rollout& rollout);  // advances the moving-average baseline

  // The share of the loss that `rows` (i64) contribute when `minibatch` (i64, a superset) is
  // one optimizer step: sums over disjoint `rows` give the loss of the whole minibatch.
  // logp_new: (rows, T), differentiable. Adds to `metrics` sums over tokens and their counts:
  // see estimator_metrics.
  torch::Tensor loss(const torch::Tensor& logp_new, const Rollout& rollout,
                     const PreparedBatch& batch, const torch::Tensor& rows,
                     const torch::Tensor& minibatch, Metrics& metrics) const;

  const EstimatorOptions& options() const { return options_; }
  double baseline() const { return baseline_; }  // state to checkpoint
  void set_baseline(double value) { baseline_ = value; }

 private:
  EstimatorOptions options_;
  double baseline_ = 0;
};

// Turns summed metrics into means: clip fractions (low, high), ratio, k3 to old and reference.
Metrics estimator_metrics(const Metrics& sums);

}  // namespace pion::lab
