// SPDX-License-Identifier: Apache-2.0
// Combinations that are refused, one by one, and names.
#include "lab/algorithms/policy_gradient/estimator_options.h"

#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <vector>

#include "tests/thrown_message.h"

namespace pion::lab {
namespace {

using Change = std::function<void(EstimatorOptions&)>;

struct Refusal {
  const char* method;
  Change change;
  std::vector<const char*> says;
};

const double kNan = std::numeric_limits<double>::quiet_NaN();

std::vector<Refusal> refusals() {
  using O = EstimatorOptions&;
  return {
      // combinations without a meaning
      {"gmpo",
       [](O o) { o.aggregation = Aggregation::kTokenMean; },
       {"gmpo", "token_mean"}},
      {"gmpo",
       [](O o) { o.advantage = AdvantageKind::kReinforcePlusPlus; },
       {"gmpo", "reinforce_plus_plus"}},
      {"gmpo", [](O o) { o.mismatch_correction = true; }, {"gmpo", "mismatch_cap = 0"}},
      {"gmpo", [](O o) { o.dual_clip = 3; }, {"dual_clip", "clip"}},
      {"minirl",
       [](O o) { o.aggregation = Aggregation::kSeqMeanTokenMean; },
       {"minirl", "seq_mean_token_mean"}},
      {"minirl", [](O o) { o.mismatch_correction = true; }, {"minirl", "mismatch_cap"}},
      {"minirl", [](O o) { o.dual_clip = 3; }, {"dual_clip"}},
      {"rloo", [](O o) { o.dual_clip = 3; }, {"dual_clip", "loss \"clip\""}},
      {"dr_grpo", [](O) {}, {"seq_mean_token_sum_norm", "length_constant", "got 0"}},
      {"grpo", [](O o) { o.length_constant = 10; }, {"length_constant", "token_mean"}},
      {"dapo", [](O o) { o.overlong_limit = 100; }, {"overlong_cache", "100", "got 0"}},
      {"dapo",
       [](O o) { o.overlong_limit = 100, o.overlong_cache = 101; },
       {"overlong_cache", "got 101"}},
      {"dapo", [](O o) { o.overlong_cache = 10; }, {"overlong_cache", "overlong_limit"}},
      // options that nothing reads
      {"grpo", [](O o) { o.kl_coefficient = 0.1; }, {"kl_coefficient", "kl"}},
      {"grpo", [](O o) { o.reinforce_baseline = 0.9; }, {"reinforce_baseline"}},
      {"grpo", [](O o) { o.gmpo_clip = 0.3; }, {"gmpo_clip"}},
      {"grpo", [](O o) { o.minirl_cap = 2; }, {"minirl_cap"}},
      {"grpo", [](O o) { o.mismatch_veto = 0; }, {"mismatch_correction"}},
      {"gmpo", [](O o) { o.clip_high = 0.3; }, {"clip_high"}},
      {"rloo", [](O o) { o.clip_low = 0.3; }, {"clip_low"}},
      {"rloo", [](O o) { o.std_floor = 0; }, {"std_floor"}},
      {"rloo", [](O o) { o.sample_std = false; }, {"sample_std"}},
      // values
      {"grpo", [](O o) { o.clip_low = 0; }, {"clip_low", "(0, 1]"}},
      {"grpo", [](O o) { o.clip_low = 1.5; }, {"clip_low", "1.5"}},
      {"grpo", [](O o) { o.clip_high = kNan; }, {"clip_high", "nan"}},
      {"grpo", [](O o) { o.dual_clip = 1; }, {"dual_clip", "above 1"}},
      {"gmpo", [](O o) { o.gmpo_clip = -1; }, {"gmpo_clip", "-1"}},
      {"minirl", [](O o) { o.minirl_cap = 0.5; }, {"minirl_cap", "0.5"}},
      {"grpo", [](O o) { o.std_floor = -1; }, {"std_floor", "-1"}},
      {"grpo",
       [](O o) { o.kl = KlKind::kK3, o.kl_coefficient = -1; },
       {"kl_coefficient", "-1"}},
      {"reinforce",
       [](O o) { o.reinforce_baseline = 1; },
       {"reinforce_baseline", "[0, 1)"}},
      {"dapo", [](O o) { o.overlong_limit = -1; }, {"overlong_limit"}},
      {"grpo",
       [](O o) { o.mismatch_correction = true, o.mismatch_cap = 0.5; },
       {"mismatch_cap", "0.5"}},
      {"grpo",
       [](O o) { o.mismatch_correction = true, o.mismatch_low = 1.1; },
       {"mismatch_low", "enclose 1"}},
      {"grpo",
       [](O o) { o.mismatch_correction = true, o.mismatch_veto = 1; },
       {"mismatch_veto"}},
  };
}

TEST(EstimatorOptions, RefuseWhatHasNoMeaning) {
  for (const Refusal& refusal : refusals()) {
    EstimatorOptions options = estimator_named(refusal.method);
    refusal.change(options);
    const std::string message = message_of([&] { check_estimator(options); });
    EXPECT_NE(message, "") << refusal.method << " must be refused: " << refusal.says[0];
    for (const char* part : refusal.says) expect_says(message, part);
  }
}

TEST(EstimatorOptions, NamedMethodsAreWhole) {
  for (const char* name :
       {"reinforce", "reinforce_plus_plus", "reinforce_plus_plus_baseline", "rloo",
        "grpo", "dr_grpo", "dapo", "gmpo", "minirl"}) {
    EstimatorOptions options = estimator_named(name);
    if (std::string(name) == "dr_grpo") options.length_constant = 512;
    EXPECT_EQ(message_of([&] { check_estimator(options); }), "") << name;
  }
  EXPECT_EQ(estimator_named("dapo").clip_high, 0.28);
  EXPECT_EQ(estimator_named("gmpo").gmpo_clip, 0.4);
  expect_says(message_of([] { estimator_named("gpro"); }), "\"gpro\"");
}

TEST(EstimatorOptions, NamesGoBothWays) {
  for (const Aggregation mode :
       {Aggregation::kTokenMean, Aggregation::kSeqMeanTokenMean,
        Aggregation::kSeqMeanTokenSum, Aggregation::kSeqMeanTokenSumNorm})
    EXPECT_EQ(aggregation_named(name_of(mode)), mode);
  for (const KlKind kind : {KlKind::kNone, KlKind::kK1InReward, KlKind::kK2, KlKind::kK3})
    EXPECT_EQ(kl_named(name_of(kind)), kind);
  EXPECT_EQ(kl_named("low_var_kl"), KlKind::kK3);
  expect_says(message_of([] { kl_named("k4"); }), "k1_in_reward");
  expect_says(message_of([] { aggregation_named("mean"); }), "\"mean\"");
}

}  // namespace
}  // namespace pion::lab
