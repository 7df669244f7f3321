// SPDX-License-Identifier: Apache-2.0
// Losses of single tokens, aggregation and KL against their formulas in double.
#include "lab/algorithms/policy_gradient/token_loss.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "lab/algorithms/policy_gradient/aggregate.h"
#include "lab/algorithms/policy_gradient/estimator.h"
#include "lab/algorithms/policy_gradient/kl.h"
#include "tests/thrown_message.h"

namespace pion::lab {
namespace {

using torch::Tensor;
// f64, a handful of operations on numbers of order 1
constexpr double kFewOperations = 1e-12;

Tensor row(const std::vector<double>& x) {
  return torch::tensor(x, torch::kFloat64).unsqueeze(0);
}
double at(const Tensor& x, std::int64_t i) { return x.flatten()[i].item<double>(); }

// One sequence with log-ratios l: logp_old = -1 everywhere.
struct OneSequence {
  Tensor logp_new;
  TokenInputs inputs;
};
OneSequence sequence_of(const std::vector<double>& l, double advantage) {
  OneSequence s;
  s.logp_new = (row(l) - 1).requires_grad_();
  s.inputs = {.logp_new = s.logp_new,
              .logp_old = torch::full_like(row(l), -1),
              .logp_rollout = torch::full_like(row(l), -1),
              .advantage = torch::full({1, 1}, advantage, torch::kFloat64),
              .weight = torch::ones_like(row(l)),
              .mask = torch::ones_like(row(l), torch::kBool)};
  return s;
}
Tensor gradient(const OneSequence& s, const Tensor& loss) {
  return torch::autograd::grad({loss.sum()}, {s.logp_new})[0];
}

const std::vector<double> kRatios = {-30, -1.3, -0.3, -0.05, 0, 0.05,
                                     0.2, 0.3,  1.3,  2.5,   30};

TEST(TokenLoss, ClipAndDualClipAreTheirFormulas) {
  EstimatorOptions o;
  o.clip_low = 0.2, o.clip_high = 0.28;
  for (const double dual : {0.0, 3.0}) {
    for (const double a : {-1.5, 0.7}) {
      o.dual_clip = dual;
      OneSequence s = sequence_of(kRatios, a);
      const TokenLoss loss = token_loss(s.inputs, o);
      const Tensor slope = gradient(s, loss.value);
      for (std::size_t i = 0; i < kRatios.size(); ++i) {
        const double rho = std::exp(std::clamp(kRatios[i], -20.0, 20.0));
        const double clipped = std::clamp(rho, 0.8, 1.28);
        double expected = -std::min(rho * a, clipped * a);
        if (dual > 0 && a < 0) expected = std::min(expected, -dual * a);
        const auto k = static_cast<std::int64_t>(i);
        EXPECT_NEAR(at(loss.value, k), expected,
                    kFewOperations * std::max(1.0, std::abs(expected)));
        const bool high = a > 0 && rho > 1.28, low = a < 0 && rho < 0.8,
                   far = dual > 0 && a < 0 && rho > dual,
                   outside = std::abs(kRatios[i]) > 20;
        EXPECT_EQ(at(loss.clipped_high, k), high) << kRatios[i] << " " << a;
        EXPECT_EQ(at(loss.clipped_low, k), low) << kRatios[i] << " " << a;
        EXPECT_EQ(at(loss.clipped_dual, k), far) << kRatios[i] << " " << a;
        const double wanted = high || low || far || outside ? 0 : -rho * a;
        EXPECT_NEAR(at(slope, k), wanted,
                    kFewOperations * std::max(1.0, std::abs(wanted)))
            << kRatios[i] << " " << a << " " << dual;
      }
    }
  }
}

TEST(TokenLoss, GmpoClipsEveryTokenOnOneSideInLogSpace) {
  const std::vector<double> l = {.9, -.1, -.6};
  struct Case {
    double advantage, ratio;
    std::vector<int> reached;
  };
  for (const Case& c : {Case{1, 0.904837, {0, 1, 1}}, Case{-1, 1.142631, {1, 1, 0}}}) {
    OneSequence s = sequence_of(l, c.advantage);
    const TokenLoss loss = token_loss(s.inputs, estimator_named("gmpo"));
    ASSERT_EQ(loss.value.numel(), 1);
    EXPECT_NEAR(at(loss.value, 0), -c.advantage * c.ratio, 5e-7);
    const Tensor slope = gradient(s, loss.value);
    for (int t = 0; t < 3; ++t) {
      // d(-A e^mean)/dl_t = -A e^mean / 3 where the clip does not bind
      EXPECT_NEAR(at(slope, t), -c.advantage * c.ratio / 3 * c.reached[t], 5e-7) << t;
    }
    EXPECT_EQ(loss.clipped_high.sum().item<int>(), c.advantage > 0 ? 1 : 0);
    EXPECT_EQ(loss.clipped_low.sum().item<int>(), c.advantage < 0 ? 1 : 0);
  }
}

TEST(TokenLoss, MiniRlMasksByTheOldPolicyAndWeighsByTheRollout) {
  EstimatorOptions o = estimator_named("minirl");
  for (const double cap : {0.0, 5.0}) {
    for (const double a : {-1.5, 0.7}) {
      o.minirl_cap = cap;
      OneSequence s = sequence_of(kRatios, a);
      s.inputs.logp_rollout =
          row(kRatios).flip(1) * 0.1 - 1;              // another order of mismatches
      s.inputs.logp_rollout.index_put_({0, 3}, -4.0);  // e^3 > 5
      const TokenLoss loss = token_loss(s.inputs, o);
      const Tensor slope = gradient(s, loss.value);
      for (std::size_t i = 0; i < kRatios.size(); ++i) {
        const auto k = static_cast<std::int64_t>(i);
        const double rho = std::exp(std::clamp(kRatios[i], -20.0, 20.0));
        double mismatch = std::exp(-1 - at(s.inputs.logp_rollout, k));
        if (cap > 0) mismatch = std::min(mismatch, cap);
        const bool masked = (a > 0 && rho > 1.27) || (a < 0 && rho < 0.8);
        const double wanted = masked ? 0 : -mismatch * rho * a;
        EXPECT_NEAR(at(slope, k), wanted,
                    kFewOperations * std::max(1.0, std::abs(wanted)))
            << kRatios[i] << " " << a << " " << cap;
      }
    }
  }
}

TEST(TokenLoss, PolicyGradientIsMinusWeightTimesAdvantage) {
  OneSequence s = sequence_of(kRatios, -2);
  s.inputs.weight = row(std::vector<double>(kRatios.size(), 0.5));
  const TokenLoss loss = token_loss(s.inputs, estimator_named("rloo"));
  EXPECT_TRUE(torch::equal(gradient(s, loss.value), torch::ones_like(s.logp_new)));
}

// -------------------------------------------------------------------------------
// aggregate

TEST(Aggregate, FourModesOfTheSameTokens) {
  const Tensor loss = torch::tensor({{1.0, 99.0, 99.0}, {2.0, 4.0, 6.0}});
  const Tensor mask = torch::tensor({{1, 0, 0}, {1, 1, 1}}).to(torch::kBool);
  const Denominator all = denominator_of(mask);
  EXPECT_EQ(all.tokens, 4);
  EXPECT_EQ(all.sequences, 2);
  const auto value = [&](Aggregation mode) {
    return aggregate(loss, mask, mode, all, 4.0).item<double>();
  };
  EXPECT_EQ(value(Aggregation::kTokenMean), 3.25);
  EXPECT_EQ(value(Aggregation::kSeqMeanTokenMean), 2.5);
  EXPECT_EQ(value(Aggregation::kSeqMeanTokenSum), 6.5);
  EXPECT_EQ(value(Aggregation::kSeqMeanTokenSumNorm), 1.625);
}

TEST(Aggregate, ARowWithoutTokensCountsInNoDenominator) {
  const Tensor loss = torch::full({2, 2}, 3.0);
  const Tensor mask = torch::tensor({{0, 0}, {1, 1}}).to(torch::kBool);
  for (const Aggregation mode : {Aggregation::kTokenMean, Aggregation::kSeqMeanTokenMean})
    EXPECT_EQ(aggregate(loss, mask, mode, denominator_of(mask), 1).item<double>(), 3.0);
  const Tensor none = torch::zeros_like(mask);
  for (const Aggregation mode : {Aggregation::kTokenMean, Aggregation::kSeqMeanTokenMean})
    EXPECT_EQ(aggregate(loss, none, mode, denominator_of(none), 1).item<double>(), 0.0);
}

TEST(Aggregate, ADenominatorOfLessThanThePartIsRefused) {
  const Tensor loss = torch::ones({2, 2}), mask = torch::ones({2, 2}, torch::kBool);
  expect_says(message_of([&] {
                aggregate(loss, mask, Aggregation::kTokenMean, Denominator{}, 0);
              }),
              "whole optimizer step");
}

TEST(Kl, ValuesAndGradients) {
  for (const double x : {-25.0, -2.0, -1e-9, 0.0, 1e-9, 0.5, 3.0}) {
    const Tensor d = torch::full({1}, x, torch::kFloat64);
    EXPECT_EQ(at(k2(d), 0), 0.5 * x * x);
    const double limited = std::clamp(x, -20.0, 20.0);
    const double expected = std::expm1(limited) - limited;
    EXPECT_NEAR(at(k3(d), 0), expected, 1e-15 * std::max(1.0, expected));
    EXPECT_GE(at(k3(d), 0), 0);
  }
}

}  // namespace
}  // namespace pion::lab
