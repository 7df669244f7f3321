// SPDX-License-Identifier: Apache-2.0
// What a policy-gradient method is made of, and which parts fit together.
#pragma once

#include <cstdint>
#include <string>

namespace pion::lab {

enum class AdvantageKind {
  kReinforce,                  // R - b, b a moving average of earlier batches (or 0)
  kReinforcePlusPlus,          // token returns, whitened over all tokens of the batch
  kReinforcePlusPlusBaseline,  // the group's mean subtracted first
  kRloo,                       // R - mean of the others of the group
  kGrpo,                       // (R - mean) / (std + std_floor), 0 where max == min
  kDrGrpo,                     // R - mean
};
enum class LossKind {
  kPolicyGradient,  // -A log pi
  kClip,            // PPO: -min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A)
  kGmpo,            // -A times the geometric mean of ratios, clipped a token in log space
  kMiniRl,          // -M sg(pi / mu) A log pi, M = 0 where PPO's clip would bind
};
// N = sequences with a token in the mask, L = tokens in the mask, of one optimizer step.
enum class Aggregation {
  kTokenMean,           // sum / L
  kSeqMeanTokenMean,    // sum over sequences of (sum / |y|) / N
  kSeqMeanTokenSum,     // sum / N
  kSeqMeanTokenSumNorm  // sum / N / length_constant
};
// In which answers to one problem must differ for dynamic sampling to keep them. As verl's
// algorithm.filter_groups.metric "acc" and "seq_reward".
enum class FilterMetric {
  kCorrect,  // some right, some wrong
  kReward    // rewards as the verifier gives them, before penalties and KL
};
enum class KlKind {
  kNone,
  kK1InReward,  // R - beta sum_t (log pi_old - log pi_ref); REINFORCE++ token by token
  kK2,          // beta d^2 / 2 in the loss, d = log pi_ref - log pi
  kK3           // beta (e^d - d - 1) in the loss, "low_var_kl"
};

struct EstimatorOptions {
  AdvantageKind advantage = AdvantageKind::kGrpo;
  LossKind loss = LossKind::kClip;
  Aggregation aggregation = Aggregation::kSeqMeanTokenMean;
  KlKind kl = KlKind::kNone;
  double kl_coefficient = 0.0;  // beta, >= 0
  double clip_low = 0.2;        // epsilon below 1, in (0, 1]; kClip, kMiniRl
  double clip_high = 0.2;       // and above, > 0; DAPO 0.28
  double gmpo_clip = 0.4;       // on token log-ratios, > 0
  double dual_clip = 0.0;       // c > 1: A < 0 costs at most -c A, kClip only; 0: off
  double minirl_cap = 5.0;      // of pi_old / mu, >= 1; 0: off. INFERRED, not the paper's
  double std_floor = 1e-6;  // delta of kGrpo, >= 0; REINFORCE++ adds it to the variance
  bool sample_std = true;   // ddof 1; false: ddof 0
  double length_constant = 0.0;  // denominator of kSeqMeanTokenSumNorm, > 0 there, else 0
  double reinforce_baseline = 0.0;  // decay c of kReinforce's b, in [0, 1); 0: no b
  bool drop_truncated = false;      // DAPO: overlong responses leave the loss
  std::int64_t overlong_limit = 0;  // DAPO's soft penalty: Lmax in tokens; 0: off
  std::int64_t overlong_cache = 0;  // and Lc, in [1, Lmax]
  bool dynamic_sampling = false;    // DAPO: only groups whose filter_metric differs
  FilterMetric filter_metric = FilterMetric::kCorrect;
  bool mismatch_correction = false;  // weigh and reject by pi_old / mu: reweigh.h
  double mismatch_cap = 2.0;  // of the token weight, >= 1; 0: no weight, reject only
  double mismatch_low = 0.999, mismatch_high = 1.001;  // geometric mean of a sequence
  double mismatch_veto = 1e-4;                         // of one token
};

// Throws std::invalid_argument for values out of range and for combinations without a
// meaning, also options that the others leave without effect; the message names both.
void check_estimator(const EstimatorOptions& options);

// Starting points: "reinforce", "reinforce_plus_plus", "reinforce_plus_plus_baseline",
// "rloo", "grpo", "dr_grpo", "dapo", "gmpo", "minirl". What depends on the generation
// limit is left for the caller: length_constant of dr_grpo, overlong_* of dapo.
EstimatorOptions estimator_named(const std::string& name);

// As recipes write them: "token_mean", "seq_mean_token_mean", "seq_mean_token_sum",
// "seq_mean_token_sum_norm"; "none", "k1_in_reward", "k2", "k3" (or "low_var_kl").
Aggregation aggregation_named(const std::string& name);
KlKind kl_named(const std::string& name);
FilterMetric filter_metric_named(const std::string& name);  // "correct", "reward"
std::string name_of(AdvantageKind kind);
std::string name_of(LossKind kind);
std::string name_of(Aggregation aggregation);
std::string name_of(KlKind kind);

}  // namespace pion::lab
