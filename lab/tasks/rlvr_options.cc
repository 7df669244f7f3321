// SPDX-License-Identifier: Apache-2.0
#include "lab/tasks/rlvr_options.h"

#include <cmath>
#include <stdexcept>

#include "lab/run/recipe_keys.h"

namespace pion::lab {
namespace {

constexpr const char* kMethod = "method";  // the value of keys that leave the method's
constexpr double kUnset = -1;

// A number that the method has, unless given.
Key own(std::string name, std::string text, double max = 1e9) {
  return real(std::move(name), kUnset, std::move(text) + "; -1: the method's", kUnset,
              max);
}
Key own_flag(std::string name, std::string text) {
  return word(std::move(name), kMethod, std::move(text), {kMethod, "true", "false"});
}

Schema rollout_keys() {
  const RlvrOptions o;
  return {
      whole("rl.updates", o.updates, "rollouts", 1),
      whole("rl.prompts", o.prompts, "problems of a rollout", 1, 1 << 20),
      whole("rl.samples", o.samples, "answers to each", 1, 1 << 16),
      whole("rl.max_new_tokens", o.max_new_tokens, "of an answer", 1, 1 << 24),
      real("rl.temperature", o.temperature, "of answers and log-probabilities", 1e-3,
           100),
      whole("rl.top_k", o.top_k, "likeliest tokens to sample from; 0: all", 0, 1 << 24),
      real("rl.top_p", o.top_p, "probability mass to sample from", 1e-6, 1),
      whole("rl.minibatches", o.minibatches, "optimizer steps of a pass over a rollout",
            1, 1 << 20),
      whole("rl.epochs", o.epochs, "passes over a rollout", 1, 1 << 20),
      whole("rl.micro_batch_tokens", o.micro_batch_tokens,
            "tokens in one pass forward and back; 0: the minibatch", 0),
      real("rl.max_grad_norm", o.max_grad_norm,
           "global gradient norm, before momentum; 0: not clipped", 0, 1e9),
      whole("rl.refills", o.refills, "further rollouts that dynamic sampling may draw", 0,
            1 << 20),
      whole("rl.kl_rows", o.kl_rows,
            "answers of a rollout whose KL to the start is measured; 0: none", 0),
      {"rl.unit_rms", o.unit_rms,
       "updates of hidden matrices have root mean square lr, whatever the rule"},
      word("rl.old_logprobs", "auto",
           "who computes those of the policy that answered; auto: generation, where it "
           "samples from the whole distribution",
           {"auto", "training", "generation"}),
      flag(
          "rl.spectra", o.spectra,
          "evaluations measure how much of the gradient of four rollouts repeats in four "
          "others, by bands of singular directions"),
      {"rl.verifier", o.verifier, "name of the verifier; \"\": the problems' own"},
      {"rl.answer_after", o.verification.answer_after,
       "text, such as </think>, behind whose last place an answer is looked for; an "
       "answer without it is wrong; \"\": anywhere"},
      real("rl.reward_correct", o.verification.weights.correct, "for a right answer",
           -1e6, 1e6),
      real("rl.reward_format", o.verification.weights.format,
           "for an answer of the asked form", -1e6, 1e6),
      real("rl.verifier_seconds", o.verification.timeout_seconds,
           "that a worker may take for an answer", 1e-3, 86400),
      whole("rl.verifier_workers", o.verification.workers, "processes", 1, 64),
      real("rl.verifier_gigabytes", o.verification.gigabytes,
           "of memory that a worker may fill", 0.125, 1e6),
  };
}

Schema estimator_keys() {
  return {
      word("rl.method", "grpo", "the estimator that the following keys change",
           {"reinforce", "reinforce_plus_plus", "reinforce_plus_plus_baseline", "rloo",
            "grpo", "dr_grpo", "dapo", "gmpo", "minirl"}),
      word("rl.aggregation", kMethod, "of token losses",
           {kMethod, "token_mean", "seq_mean_token_mean", "seq_mean_token_sum",
            "seq_mean_token_sum_norm"}),
      word("rl.kl", kMethod, "to the start policy",
           {kMethod, "none", "k1_in_reward", "k2", "k3", "low_var_kl"}),
      own("rl.kl_coefficient", "beta"),
      own("rl.clip_low", "of the ratio, below 1", 1),
      own("rl.clip_high", "of the ratio, above 1"),
      own("rl.gmpo_clip", "of token log-ratios"),
      own("rl.dual_clip", "a negative advantage costs at most this times itself; 0: off"),
      own("rl.minirl_cap", "of the weight pi_old / mu; 0: off"),
      own("rl.std_floor", "added to a group's standard deviation"),
      own_flag("rl.sample_std", "divide by n - 1"),
      own("rl.length_constant",
          "that token sums are divided by; dr_grpo's is max_new_tokens"),
      own("rl.reinforce_baseline", "decay of the moving average", 1),
      own_flag("rl.drop_truncated", "truncated answers leave the loss"),
      own("rl.overlong_limit", "longest answer that costs less than 1; 0: no penalty"),
      own("rl.overlong_cache", "tokens before it over which the penalty grows"),
      own_flag("rl.dynamic_sampling",
               "draw again where answers to a problem do not differ"),
      word("rl.filter_metric", "correct",
           "in which they must: some right, some wrong; or in the reward",
           {"correct", "reward"}),
      own_flag("rl.mismatch_correction", "weigh and reject by pi_old / mu"),
      own("rl.mismatch_cap", "of that weight; 0: reject only"),
      own("rl.mismatch_low", "least geometric mean of a sequence", 1),
      own("rl.mismatch_high", "greatest"),
      own("rl.mismatch_veto", "least of a token", 1),
  };
}

void take(const Recipe& r, const char* key, double& value) {
  if (const double given = r.number(key); given != kUnset) value = given;
}
void take(const Recipe& r, const char* key, std::int64_t& value) {
  const double given = r.number(key);
  if (given == kUnset) return;
  if (given != std::floor(given))
    throw std::invalid_argument(std::string(key) + ": must be a whole number, got " +
                                number_text(given));
  value = static_cast<std::int64_t>(given);
}
void take(const Recipe& r, const char* key, bool& value) {
  if (const std::string& given = r.text(key); given != kMethod) value = given == "true";
}

EstimatorOptions estimator_options(const Recipe& r) {
  EstimatorOptions e = estimator_named(r.text("rl.method"));
  if (const auto& given = r.text("rl.aggregation"); given != kMethod)
    e.aggregation = aggregation_named(given);
  if (const auto& given = r.text("rl.kl"); given != kMethod) e.kl = kl_named(given);
  take(r, "rl.kl_coefficient", e.kl_coefficient);
  // 0 may be asked for, as by a grid; a coefficient that nobody named is forgotten
  if (e.kl != KlKind::kNone && e.kl_coefficient == 0 &&
      r.number("rl.kl_coefficient") == kUnset)
    throw std::invalid_argument("rl.kl = \"" + r.text("rl.kl") +
                                "\" has no effect: method \"" + r.text("rl.method") +
                                "\" has coefficient 0; set rl.kl_coefficient, as 0.001");
  take(r, "rl.clip_low", e.clip_low);
  take(r, "rl.clip_high", e.clip_high);
  take(r, "rl.gmpo_clip", e.gmpo_clip);
  take(r, "rl.dual_clip", e.dual_clip);
  take(r, "rl.minirl_cap", e.minirl_cap);
  take(r, "rl.std_floor", e.std_floor);
  take(r, "rl.sample_std", e.sample_std);
  if (e.aggregation == Aggregation::kSeqMeanTokenSumNorm)
    e.length_constant = static_cast<double>(r.integer("rl.max_new_tokens"));
  take(r, "rl.length_constant", e.length_constant);
  take(r, "rl.reinforce_baseline", e.reinforce_baseline);
  take(r, "rl.drop_truncated", e.drop_truncated);
  take(r, "rl.overlong_limit", e.overlong_limit);
  take(r, "rl.overlong_cache", e.overlong_cache);
  take(r, "rl.dynamic_sampling", e.dynamic_sampling);
  e.filter_metric = filter_metric_named(r.text("rl.filter_metric"));
  take(r, "rl.mismatch_correction", e.mismatch_correction);
  take(r, "rl.mismatch_cap", e.mismatch_cap);
  take(r, "rl.mismatch_low", e.mismatch_low);
  take(r, "rl.mismatch_high", e.mismatch_high);
  take(r, "rl.mismatch_veto", e.mismatch_veto);
  check_estimator(e);
  return e;
}

// Combinations that the estimator alone cannot see.
void check_together(const RlvrOptions& o) {
  const auto must = [](bool holds, const std::string& message) {
    if (!holds) throw std::invalid_argument(message);
  };
  must(o.minibatches <= o.rows(),
       "rl.minibatches: must be at most prompts x samples = " + std::to_string(o.rows()) +
           ", got " + std::to_string(o.minibatches));
  const bool compares =
      o.estimator.advantage == AdvantageKind::kGrpo ||
      o.estimator.advantage == AdvantageKind::kDrGrpo ||
      o.estimator.advantage == AdvantageKind::kRloo ||
      o.estimator.advantage == AdvantageKind::kReinforcePlusPlusBaseline;
  must(!compares || o.samples > 1, "rl.samples: must be at least 2, since advantage \"" +
                                       name_of(o.estimator.advantage) +
                                       "\" compares answers to one problem; got 1");
  must(!o.estimator.dynamic_sampling || o.samples > 1,
       "rl.samples: must be at least 2 with dynamic sampling, since one answer never "
       "differs; got 1");
  must(o.verification.weights.correct != 0 || o.verification.weights.format != 0,
       "rl.reward_correct and rl.reward_format must not both be 0: nothing would be "
       "rewarded");
  must(o.estimator.dynamic_sampling || o.refills == RlvrOptions{}.refills,
       "rl.refills = " + std::to_string(o.refills) +
           " has no effect without dynamic sampling; leave it out, or set "
           "rl.dynamic_sampling = \"true\"");
  const bool cut = o.top_k > 0 || o.top_p < 1;
  must(!cut || o.old_logprobs == OldLogprobs::kTraining,
       "rl.old_logprobs: must not be \"generation\" with top_k or top_p, whose "
       "log-probabilities are of another distribution; use \"training\"");
  must(!o.needs_generation_logprobs() || o.old_logprobs == OldLogprobs::kTraining,
       "rl.old_logprobs: must not be \"generation\" where the loss compares training and "
       "generation; use \"training\"");
}

}  // namespace

bool RlvrOptions::needs_reference() const {
  return estimator.kl != KlKind::kNone && estimator.kl_coefficient > 0;
}

bool RlvrOptions::needs_generation_logprobs() const {
  return estimator.mismatch_correction || estimator.loss == LossKind::kMiniRl;
}

Schema rlvr_keys() {
  Schema schema = rollout_keys();
  for (Key& key : estimator_keys()) schema.push_back(std::move(key));
  return schema;
}

RlvrOptions rlvr_options(const Recipe& r) {
  RlvrOptions o;
  o.updates = r.integer("rl.updates");
  o.prompts = r.integer("rl.prompts");
  o.samples = r.integer("rl.samples");
  o.max_new_tokens = r.integer("rl.max_new_tokens");
  o.temperature = r.number("rl.temperature");
  o.top_k = r.integer("rl.top_k");
  o.top_p = r.number("rl.top_p");
  o.minibatches = r.integer("rl.minibatches");
  o.epochs = r.integer("rl.epochs");
  o.micro_batch_tokens = r.integer("rl.micro_batch_tokens");
  o.max_grad_norm = r.number("rl.max_grad_norm");
  o.refills = r.integer("rl.refills");
  o.kl_rows = r.integer("rl.kl_rows");
  o.unit_rms = r.flag("rl.unit_rms");
  o.spectra = r.flag("rl.spectra");
  o.verifier = r.text("rl.verifier");
  o.verification.answer_after = r.text("rl.answer_after");
  o.verification.weights = {r.number("rl.reward_correct"), r.number("rl.reward_format")};
  o.verification.timeout_seconds = r.number("rl.verifier_seconds");
  o.verification.workers = static_cast<int>(r.integer("rl.verifier_workers"));
  o.verification.gigabytes = r.number("rl.verifier_gigabytes");
  o.estimator = estimator_options(r);
  o.seed = static_cast<std::uint64_t>(r.integer("seed"));
  const std::string& who = r.text("rl.old_logprobs");
  const bool training =
      who == "training" ||
      (who == "auto" && (o.top_k > 0 || o.top_p < 1 || o.needs_generation_logprobs()));
  o.old_logprobs = training ? OldLogprobs::kTraining : OldLogprobs::kGeneration;
  check_together(o);
  return o;
}

}  // namespace pion::lab
