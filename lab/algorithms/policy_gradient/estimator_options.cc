// SPDX-License-Identifier: Apache-2.0
#include "lab/algorithms/policy_gradient/estimator_options.h"

#include <array>
#include <cmath>
#include <stdexcept>
#include <utility>

#include "lab/algorithms/policy_gradient/require.h"

namespace pion::lab {
namespace {

template <class Kind, std::size_t n>
using Names = std::array<std::pair<const char*, Kind>, n>;

constexpr Names<AdvantageKind, 6> kAdvantages = {
    {{"reinforce", AdvantageKind::kReinforce},
     {"reinforce_plus_plus", AdvantageKind::kReinforcePlusPlus},
     {"reinforce_plus_plus_baseline", AdvantageKind::kReinforcePlusPlusBaseline},
     {"rloo", AdvantageKind::kRloo},
     {"grpo", AdvantageKind::kGrpo},
     {"dr_grpo", AdvantageKind::kDrGrpo}}};
constexpr Names<LossKind, 4> kLosses = {{{"policy_gradient", LossKind::kPolicyGradient},
                                         {"clip", LossKind::kClip},
                                         {"gmpo", LossKind::kGmpo},
                                         {"minirl", LossKind::kMiniRl}}};
constexpr Names<Aggregation, 4> kAggregations = {
    {{"token_mean", Aggregation::kTokenMean},
     {"seq_mean_token_mean", Aggregation::kSeqMeanTokenMean},
     {"seq_mean_token_sum", Aggregation::kSeqMeanTokenSum},
     {"seq_mean_token_sum_norm", Aggregation::kSeqMeanTokenSumNorm}}};
constexpr Names<KlKind, 5> kKls = {{{"none", KlKind::kNone},
                                    {"k1_in_reward", KlKind::kK1InReward},
                                    {"k2", KlKind::kK2},
                                    {"k3", KlKind::kK3},
                                    {"low_var_kl", KlKind::kK3}}};

constexpr Names<FilterMetric, 2> kFilterMetrics = {
    {{"correct", FilterMetric::kCorrect}, {"reward", FilterMetric::kReward}}};

template <class Kind, std::size_t n>
Kind kind_named(const char* function, const Names<Kind, n>& table,
                const std::string& name) {
  std::string known;
  for (const auto& [word, kind] : table) {
    if (name == word) return kind;
    known += (known.empty() ? "" : ", ") + std::string(word);
  }
  throw std::invalid_argument(std::string(function) + ": must be one of " + known +
                              ", got \"" + name + "\"");
}

template <class Kind, std::size_t n>
std::string name_in(const Names<Kind, n>& table, Kind kind) {
  for (const auto& [word, k] : table)
    if (k == kind) return word;
  return "unknown";
}

template <class... Parts>
void must(bool holds, const Parts&... parts) {
  require(holds, "check_estimator: ", parts...);
}

bool whitens(const EstimatorOptions& o) {
  return o.advantage == AdvantageKind::kReinforcePlusPlus ||
         o.advantage == AdvantageKind::kReinforcePlusPlusBaseline;
}

// Negated comparisons, so that NaN fails.
void check_values(const EstimatorOptions& o) {
  must(o.kl_coefficient >= 0 && std::isfinite(o.kl_coefficient),
       "kl_coefficient must be at least 0, got ", o.kl_coefficient);
  must(o.clip_low > 0 && o.clip_low <= 1, "clip_low must be in (0, 1], got ", o.clip_low);
  must(o.clip_high > 0 && std::isfinite(o.clip_high), "clip_high must be positive, got ",
       o.clip_high);
  must(o.gmpo_clip > 0 && std::isfinite(o.gmpo_clip), "gmpo_clip must be positive, got ",
       o.gmpo_clip);
  must(o.dual_clip == 0 || (o.dual_clip > 1 && std::isfinite(o.dual_clip)),
       "dual_clip must be above 1, or 0 for none, got ", o.dual_clip);
  must(o.minirl_cap == 0 || (o.minirl_cap >= 1 && std::isfinite(o.minirl_cap)),
       "minirl_cap must be at least 1, or 0 for none, got ", o.minirl_cap);
  must(o.std_floor >= 0 && std::isfinite(o.std_floor),
       "std_floor must be at least 0, got ", o.std_floor);
  must(o.reinforce_baseline >= 0 && o.reinforce_baseline < 1,
       "reinforce_baseline must be in [0, 1), got ", o.reinforce_baseline);
  must(o.overlong_limit >= 0, "overlong_limit must be at least 0, got ",
       o.overlong_limit);
  must(o.mismatch_cap == 0 || (o.mismatch_cap >= 1 && std::isfinite(o.mismatch_cap)),
       "mismatch_cap must be at least 1, or 0 for no weight, got ", o.mismatch_cap);
  must(o.mismatch_low > 0 && o.mismatch_low <= 1 && o.mismatch_high >= 1 &&
           std::isfinite(o.mismatch_high),
       "mismatch_low and mismatch_high must enclose 1, got ", o.mismatch_low, " and ",
       o.mismatch_high);
  must(o.mismatch_veto >= 0 && o.mismatch_veto < 1,
       "mismatch_veto must be in [0, 1), got ", o.mismatch_veto);
}

// What needs another option, or excludes it.
void check_pairs(const EstimatorOptions& o) {
  const bool norm = o.aggregation == Aggregation::kSeqMeanTokenSumNorm;
  must(!norm || (o.length_constant > 0 && std::isfinite(o.length_constant)),
       "aggregation \"seq_mean_token_sum_norm\" needs length_constant > 0, got ",
       o.length_constant, "; use the longest response that is generated");
  must(norm || o.length_constant == 0,
       "length_constant needs aggregation \"seq_mean_token_sum_norm\", got ",
       name_of(o.aggregation));
  must(o.overlong_limit == 0 ||
           (o.overlong_cache >= 1 && o.overlong_cache <= o.overlong_limit),
       "overlong_cache must be in [1, overlong_limit = ", o.overlong_limit, "], got ",
       o.overlong_cache);
  must(o.overlong_limit > 0 || o.overlong_cache == 0,
       "overlong_cache needs overlong_limit > 0, got 0");
  if (o.loss == LossKind::kGmpo) {
    must(o.aggregation == Aggregation::kSeqMeanTokenMean,
         "loss \"gmpo\" is a mean over sequences by definition: aggregation must be "
         "\"seq_mean_token_mean\", got \"",
         name_of(o.aggregation), "\"");
    must(!whitens(o), "loss \"gmpo\" needs one advantage a sequence, which advantage \"",
         name_of(o.advantage), "\" does not give; use \"grpo\"");
    must(!o.mismatch_correction || o.mismatch_cap == 0,
         "loss \"gmpo\" has no place for a weight a token: with mismatch_correction "
         "set mismatch_cap = 0 (rejection only), got ",
         o.mismatch_cap);
  }
  if (o.loss == LossKind::kMiniRl) {
    must(o.aggregation != Aggregation::kSeqMeanTokenMean,
         "loss \"minirl\" has no length normalization: aggregation must not be "
         "\"seq_mean_token_mean\"; use \"seq_mean_token_sum\"");
    must(!o.mismatch_correction || o.mismatch_cap == 0,
         "loss \"minirl\" already weighs by pi / mu: with mismatch_correction set "
         "mismatch_cap = 0 (rejection only), got ",
         o.mismatch_cap);
  }
}

// Options that the chosen parts do not read must be left as they are.
void check_unused(const EstimatorOptions& o) {
  const EstimatorOptions d;
  const auto unused = [](bool read, bool changed, const char* name, const char* needs) {
    must(read || !changed, name, " has no effect without ", needs,
         "; leave it at its default");
  };
  const bool clips = o.loss == LossKind::kClip || o.loss == LossKind::kMiniRl;
  const bool divides = whitens(o) || o.advantage == AdvantageKind::kGrpo;
  unused(o.kl != KlKind::kNone, o.kl_coefficient != 0, "kl_coefficient", "a kl");
  unused(clips, o.clip_low != d.clip_low, "clip_low", "loss \"clip\" or \"minirl\"");
  unused(clips, o.clip_high != d.clip_high, "clip_high", "loss \"clip\" or \"minirl\"");
  unused(o.loss == LossKind::kGmpo, o.gmpo_clip != d.gmpo_clip, "gmpo_clip",
         "loss \"gmpo\"");
  unused(o.loss == LossKind::kClip, o.dual_clip != 0, "dual_clip", "loss \"clip\"");
  unused(o.loss == LossKind::kMiniRl, o.minirl_cap != d.minirl_cap, "minirl_cap",
         "loss \"minirl\"");
  unused(divides, o.std_floor != d.std_floor, "std_floor",
         "an advantage that is divided by a standard deviation");
  unused(divides, o.sample_std != d.sample_std, "sample_std",
         "an advantage that is divided by a standard deviation");
  unused(o.advantage == AdvantageKind::kReinforce, o.reinforce_baseline != 0,
         "reinforce_baseline", "advantage \"reinforce\"");
  unused(o.dynamic_sampling, o.filter_metric != d.filter_metric, "filter_metric",
         "dynamic_sampling");
  unused(o.mismatch_correction,
         o.mismatch_cap != d.mismatch_cap || o.mismatch_low != d.mismatch_low ||
             o.mismatch_high != d.mismatch_high || o.mismatch_veto != d.mismatch_veto,
         "mismatch_cap, _low, _high or _veto", "mismatch_correction");
}

}  // namespace

void check_estimator(const EstimatorOptions& options) {
  check_values(options);
  check_pairs(options);
  check_unused(options);
}

EstimatorOptions estimator_named(const std::string& name) {
  using A = AdvantageKind;
  constexpr auto kTokenSum = Aggregation::kSeqMeanTokenSum;
  constexpr auto kTokenMean = Aggregation::kTokenMean;
  if (name == "reinforce")
    return {.advantage = A::kReinforce,
            .loss = LossKind::kPolicyGradient,
            .aggregation = kTokenSum,
            .reinforce_baseline = 0.9};
  if (name == "reinforce_plus_plus" || name == "reinforce_plus_plus_baseline")
    return {.advantage = name == "reinforce_plus_plus" ? A::kReinforcePlusPlus
                                                       : A::kReinforcePlusPlusBaseline,
            .aggregation = kTokenMean,
            .std_floor = 1e-8};  // verl
  if (name == "rloo")
    return {.advantage = A::kRloo,
            .loss = LossKind::kPolicyGradient,
            .aggregation = kTokenSum};
  if (name == "grpo") return {};
  if (name == "dr_grpo")
    return {.advantage = A::kDrGrpo, .aggregation = Aggregation::kSeqMeanTokenSumNorm};
  if (name == "dapo")
    return {.aggregation = kTokenMean, .clip_high = 0.28, .dynamic_sampling = true};
  if (name == "gmpo") return {.loss = LossKind::kGmpo};
  if (name == "minirl")  // clip_high INFERRED
    return {.loss = LossKind::kMiniRl, .aggregation = kTokenSum, .clip_high = 0.27};
  throw std::invalid_argument(
      "estimator_named: must be one of reinforce, reinforce_plus_plus, "
      "reinforce_plus_plus_baseline, rloo, grpo, dr_grpo, dapo, gmpo, minirl, got \"" +
      name + "\"");
}

Aggregation aggregation_named(const std::string& name) {
  return kind_named("aggregation_named", kAggregations, name);
}
KlKind kl_named(const std::string& name) { return kind_named("kl_named", kKls, name); }
FilterMetric filter_metric_named(const std::string& name) {
  return kind_named("filter_metric_named", kFilterMetrics, name);
}

std::string name_of(AdvantageKind kind) { return name_in(kAdvantages, kind); }
std::string name_of(LossKind kind) { return name_in(kLosses, kind); }
std::string name_of(Aggregation kind) { return name_in(kAggregations, kind); }
std::string name_of(KlKind kind) { return name_in(kKls, kind); }

}  // namespace pion::lab
