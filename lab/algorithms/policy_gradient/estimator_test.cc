// SPDX-License-Identifier: Apache-2.0
// Advantages, filters, micro-batches, missing fields and bad values of the whole
// pipeline.
#include "lab/algorithms/policy_gradient/estimator.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "lab/algorithms/policy_gradient/advantage.h"
#include "tests/thrown_message.h"

namespace pion::lab {
namespace {

using torch::Tensor;

std::vector<EstimatorOptions> every_method() {
  std::vector<EstimatorOptions> methods;
  for (const char* name :
       {"reinforce", "reinforce_plus_plus", "reinforce_plus_plus_baseline", "rloo",
        "grpo", "dr_grpo", "dapo", "gmpo", "minirl"}) {
    methods.push_back(estimator_named(name));
    if (methods.back().aggregation == Aggregation::kSeqMeanTokenSumNorm)
      methods.back().length_constant = 7;
  }
  return methods;
}

// Two groups of three and one of two responses, lengths 0 to 5, all fields given.
Rollout uneven_groups(torch::ScalarType type = torch::kFloat64) {
  torch::manual_seed(3);
  const auto options = torch::TensorOptions(type);
  const Tensor length = torch::tensor({5, 3, 1, 4, 2, 5, 0, 3});
  Rollout r;
  r.mask = torch::arange(5).unsqueeze(0) < length.unsqueeze(1);
  r.logp_old = -torch::rand({8, 5}, options) - 0.1;
  r.logp_rollout = r.logp_old + 0.0001 * torch::randn({8, 5}, options);
  r.logp_ref = r.logp_old + 0.3 * torch::randn({8, 5}, options);
  r.reward = torch::tensor({1.0, 0.0, 0.5, 1.0, 1.0, 0.25, 0.0, 2.0}).to(type);
  r.group = torch::tensor({7, 7, 7, -2, -2, -2, 9, 9});
  r.correct = r.reward == 1;
  r.truncated = length == 5;
  return r;
}

Rollout group_of(const std::vector<double>& reward) {
  const auto n = static_cast<std::int64_t>(reward.size());
  return {.logp_old = torch::full({n, 2}, -1.0, torch::kFloat64),
          .mask = torch::ones({n, 2}, torch::kBool),
          .reward = torch::tensor(reward, torch::kFloat64),
          .group = torch::zeros({n}, torch::kInt64)};
}

void expect_advantages(const EstimatorOptions& options, const Rollout& rollout,
                       const std::vector<double>& expected, double tolerance) {
  const Tensor a = Estimator(options).prepare(rollout).advantage;
  ASSERT_EQ(a.numel(), static_cast<std::int64_t>(expected.size()));
  for (std::size_t i = 0; i < expected.size(); ++i)
    EXPECT_NEAR(a[static_cast<std::int64_t>(i)].item<double>(), expected[i], tolerance)
        << i;
}

// ------------------------------------------------------------------------------
// advantages

TEST(Advantage, OfAGroupByHand) {
  const Rollout four = group_of({1, 0, 0, .5});
  EstimatorOptions grpo;
  grpo.std_floor = 0;
  expect_advantages(grpo, four, {1.305582, -0.783349, -0.783349, 0.261116}, 5e-7);
  grpo.sample_std = false;
  expect_advantages(grpo, four, {1.507557, -0.904534, -0.904534, 0.301511}, 5e-7);
  grpo.std_floor = 0.1;  // std of (1, 0) is .5
  expect_advantages(grpo, group_of({1, 0}), {.5 / .6, -.5 / .6}, 1e-12);
  expect_advantages(estimator_named("rloo"), four, {1 - .5 / 3, -.5, -.5, .5 - 1. / 3},
                    1e-12);
  EstimatorOptions dr_grpo = every_method()[5];
  expect_advantages(dr_grpo, four, {.625, -.375, -.375, .125}, 1e-12);
}

TEST(Advantage, GroupsAreApartAndOfAnySize) {
  Rollout r = uneven_groups();
  expect_advantages(estimator_named("rloo"), r, {.75, -.75, 0, .375, .375, -.75, -2, 2},
                    1e-12);
  EstimatorOptions dr_grpo = every_method()[5];
  expect_advantages(dr_grpo, r, {.5, -.5, 0, .25, .25, -.5, -1, 1}, 1e-12);
}

TEST(Advantage, AGroupOfOneKeepsItsReward) {
  for (const char* name : {"rloo", "grpo"})
    expect_advantages(estimator_named(name), group_of({.3}), {.3}, 1e-15);
}

TEST(Advantage, TheMovingAverageDoesNotSeeItsOwnBatch) {
  EstimatorOptions options = estimator_named("reinforce");
  options.reinforce_baseline = 0.75;
  Estimator estimator(options);
  const Tensor first = estimator.prepare(group_of({2, 4})).advantage;
  EXPECT_EQ(first[0].item<double>(), 2);
  EXPECT_EQ(first[1].item<double>(), 4);
  EXPECT_DOUBLE_EQ(estimator.baseline(), 0.75);  // .75 * 0 + .25 * 3
  const Tensor second = estimator.prepare(group_of({2, 4})).advantage;
  EXPECT_DOUBLE_EQ(second[0].item<double>(), 1.25);
  EXPECT_DOUBLE_EQ(estimator.baseline(), 0.75 * 0.75 + 0.25 * 3);
  estimator.set_baseline(5);
  EXPECT_EQ(estimator.prepare(group_of({2, 4})).advantage[0].item<double>(), -3);
}

// Whitened returns-to-go, token by token from the definition.
TEST(Advantage, ReinforcePlusPlusWhitensReturnsOverAllTokens) {
  const Rollout r = uneven_groups();
  EstimatorOptions o = estimator_named("reinforce_plus_plus");
  o.kl = KlKind::kK1InReward;
  o.kl_coefficient = 0.4;
  const Tensor got = Estimator(o).prepare(r).advantage;
  std::vector<double> returns;
  for (int i = 0; i < 8; ++i)
    for (int t = 0; t < 5; ++t) {
      if (!r.mask[i][t].item<bool>()) continue;
      double sum = r.reward[i].item<double>();
      for (int s = t; s < 5; ++s)
        if (r.mask[i][s].item<bool>())
          sum -= 0.4 * (r.logp_old[i][s] - r.logp_ref[i][s]).item<double>();
      returns.push_back(sum);
    }
  double mean = 0, square = 0;
  for (const double g : returns) mean += g / static_cast<double>(returns.size());
  for (const double g : returns)
    square += (g - mean) * (g - mean) / static_cast<double>(returns.size() - 1);
  std::size_t next = 0;
  for (int i = 0; i < 8; ++i)
    for (int t = 0; t < 5; ++t) {
      const double expected = r.mask[i][t].item<bool>()
                                  ? (returns[next++] - mean) / std::sqrt(square + 1e-8)
                                  : 0;
      EXPECT_NEAR(got[i][t].item<double>(), expected, 1e-12) << i << " " << t;
    }
}

TEST(Advantage, OverlongPenaltyIsSoftAndBounded) {
  const std::vector<std::pair<int, double>> cases = {
      {80, 0}, {85, -.25}, {90, -.5}, {100, -1}, {120, -1}};
  for (const auto& [length, penalty] : cases)
    EXPECT_DOUBLE_EQ(overlong_penalty(length, 100, 20), penalty) << length;
  EstimatorOptions options = estimator_named("reinforce");
  options.overlong_limit = 5, options.overlong_cache = 2;
  // lengths 5 3 1 4 2 5 0 3: penalties -1 0 0 -.5 0 -1 0 0
  expect_advantages(options, uneven_groups(), {0, 0, .5, .5, 1, -.75, 0, 2}, 1e-12);
}

// ---------------------------------------------------------------------------------
// signal

TEST(Signal, EqualRewardsGiveExactlyNone) {
  for (const torch::ScalarType type : {torch::kFloat32, torch::kFloat64}) {
    for (EstimatorOptions options : every_method()) {
      if (options.advantage == AdvantageKind::kReinforce) continue;  // R - b is a signal
      if (options.std_floor == 1e-6 && options.advantage == AdvantageKind::kGrpo)
        options.std_floor = 0;  // the hardest: 0 / 0
      options.dynamic_sampling = false;
      Rollout r = uneven_groups(type);
      r.reward = torch::full({8}, 0.1, type);  // 0.1 + 0.1 + 0.1 is not 0.3
      const PreparedBatch batch = Estimator(options).prepare(r);
      EXPECT_TRUE(batch.no_signal) << name_of(options.advantage);
      EXPECT_EQ(batch.advantage.abs().max().item<double>(), 0)
          << name_of(options.advantage);
      EXPECT_EQ(batch.metrics.at("zero_spread_groups"), 1);
    }
  }
}

TEST(Signal, IsKnownRowByRow) {
  Rollout r = uneven_groups();
  r.reward = torch::tensor({1., 0., .5, 1., 1., 1., 0., 2.}, torch::kFloat64);
  const PreparedBatch batch = Estimator(estimator_named("grpo")).prepare(r);
  EXPECT_FALSE(batch.no_signal);
  // row 2 is its group's mean, 3-5 are all equal, row 6 has no tokens
  const std::vector<bool> expected = {true,  true,  false, false,
                                      false, false, false, true};
  for (int i = 0; i < 8; ++i) EXPECT_EQ(batch.signal[i].item<bool>(), expected[i]) << i;
  EXPECT_NEAR(batch.metrics.at("zero_spread_groups"), 1. / 3, 1e-15);
}

TEST(Signal, AKlTermPullsUnlessThePolicyIsItsReference) {
  EstimatorOptions options = estimator_named("grpo");
  options.kl = KlKind::kK3;
  options.kl_coefficient = 0.01;
  Rollout r = uneven_groups();
  r.reward.fill_(1);
  EXPECT_FALSE(Estimator(options).prepare(r).no_signal);
  r.logp_ref = r.logp_old.clone();
  EXPECT_TRUE(Estimator(options).prepare(r).no_signal);
}

// ------------------------------------------------------------------------------ rows,
// parts

// Gradient of the loss of `minibatch`, summed over parts of it.
Tensor gradient(const Estimator& estimator, const Rollout& r, const PreparedBatch& batch,
                const Tensor& minibatch, int parts, Metrics& sums) {
  torch::manual_seed(8);
  Tensor logp = (r.logp_old + 0.5 * torch::randn_like(r.logp_old)).requires_grad_();
  for (const Tensor& rows : minibatch.chunk(parts))
    estimator.loss(logp.index_select(0, rows), r, batch, rows, minibatch, sums)
        .backward();
  return logp.grad();
}

TEST(MicroBatches, AddUpToTheWholeStepForEveryMethod) {
  for (EstimatorOptions options : every_method()) {
    for (const KlKind kl : {KlKind::kNone, KlKind::kK2, KlKind::kK3}) {
      options.kl = kl;
      options.kl_coefficient = kl == KlKind::kNone ? 0 : 0.2;
      options.drop_truncated = true;
      const Rollout r = uneven_groups();
      Estimator estimator(options);
      const PreparedBatch batch = estimator.prepare(r);
      const Tensor minibatch = torch::tensor({6, 1, 4, 0, 7, 2});
      Metrics whole_sums;
      const Tensor whole = gradient(estimator, r, batch, minibatch, 1, whole_sums);
      EXPECT_GT(whole.abs().max().item<double>(), 1e-3) << name_of(options.advantage);
      for (const int parts : {2, 3, 6}) {
        Metrics sums;
        const Tensor sum = gradient(estimator, r, batch, minibatch, parts, sums);
        EXPECT_LT((sum - whole).abs().max().item<double>(), 1e-14)
            << name_of(options.advantage) << " " << name_of(options.loss) << " " << parts;
        const Metrics means = estimator_metrics(sums);
        for (const auto& [name, value] : estimator_metrics(whole_sums))
          EXPECT_NEAR(means.at(name), value, 1e-12) << name;
      }
    }
  }
}

TEST(MicroBatches, PaddingMayHoldAnything) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (EstimatorOptions options : every_method()) {
    options.kl = KlKind::kK3;
    options.kl_coefficient = 0.2;
    const Rollout clean = uneven_groups();
    Rollout dirty = clean;
    for (Tensor* x : {&dirty.logp_old, &dirty.logp_rollout, &dirty.logp_ref})
      *x = x->masked_fill(clean.mask.logical_not(), nan);
    const Tensor all = torch::arange(8);
    Tensor gradients[2];
    for (const bool is_dirty : {false, true}) {
      Estimator estimator(options);
      const Rollout& r = is_dirty ? dirty : clean;
      Tensor logp = (clean.logp_old + 0.1)
                        .masked_fill(clean.mask.logical_not(), is_dirty ? nan : -1.0);
      logp.requires_grad_();
      Metrics sums;
      estimator.loss(logp, r, estimator.prepare(r), all, all, sums).backward();
      gradients[is_dirty] = logp.grad();
      for (const auto& [name, value] : estimator_metrics(sums))
        EXPECT_TRUE(std::isfinite(value)) << name;
    }
    EXPECT_TRUE(torch::equal(gradients[0], gradients[1])) << name_of(options.advantage);
  }
}

TEST(Metrics, AreMeansOverTokens) {
  Rollout r = group_of({1, 0});
  const Tensor logp = torch::tensor({{-0.5, -1.0}, {-1.5, -1.1}}, torch::kFloat64);
  Estimator estimator(estimator_named("grpo"));
  const PreparedBatch batch = estimator.prepare(r);
  Metrics sums;
  const Tensor all = torch::arange(2);
  estimator.loss(logp, r, batch, all, all, sums);
  const Metrics m = estimator_metrics(sums);
  const std::vector<double> l = {.5, 0, -.5, -.1};
  double ratio = 0, k3 = 0;
  for (const double x : l) ratio += std::exp(x) / 4, k3 += (std::exp(x) - x - 1) / 4;
  EXPECT_EQ(m.at("clip_fraction_high"), 0.25);
  EXPECT_EQ(m.at("clip_fraction_low"), 0.25);
  EXPECT_NEAR(m.at("ratio"), ratio, 1e-12);
  EXPECT_NEAR(m.at("k3_old"), k3, 1e-12);
  EXPECT_EQ(m.count("k3_ref"), 0u);
  EXPECT_EQ(m.count("k3_rollout"), 0u);
}

}  // namespace
}  // namespace pion::lab
