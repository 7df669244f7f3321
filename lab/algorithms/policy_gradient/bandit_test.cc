// SPDX-License-Identifier: Apache-2.0
// Estimators on a bandit of three arms: expectations over all 3^N groups, in f64.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <vector>

#include "lab/algorithms/policy_gradient/fixtures.h"

namespace pion::lab {
namespace {

using fixtures::bandit;
using fixtures::TokenTree;
using torch::Tensor;

constexpr double kExact = 1e-10;  // sums of at most 81 terms of order 1 in f64

TEST(Bandit, IsTheFixture) {
  const TokenTree f1 = bandit();
  EXPECT_NEAR(f1.objective(), 0.496250, 5e-7);
  const Tensor gradient = f1.objective_gradient();
  const std::array<double, 3> expected = {-0.17548, -0.04209, 0.21757};
  for (int i = 0; i < 3; ++i)
    EXPECT_NEAR(gradient[0][i].item<double>(), expected[i], 5e-6);
}

TEST(Bandit, RlooIsUnbiasedForEveryGroupSize) {
  const TokenTree f1 = bandit();
  for (const std::int64_t n : {2, 3, 4}) {
    const Tensor mean = fixtures::expected_direction(f1, n, estimator_named("rloo"));
    EXPECT_LT(fixtures::largest_difference(mean, f1.objective_gradient()), kExact) << n;
  }
}

TEST(Bandit, CentringByTheMeanShrinksByNMinus1OverN) {
  const TokenTree f1 = bandit();
  EstimatorOptions options = estimator_named("dr_grpo");
  options.length_constant = 1;
  for (const std::int64_t n : {2, 3, 4}) {
    const double shrink = static_cast<double>(n - 1) / static_cast<double>(n);
    const Tensor mean = fixtures::expected_direction(f1, n, options);
    EXPECT_LT(fixtures::largest_difference(mean, shrink * f1.objective_gradient()),
              kExact)
        << n;
  }
}

// (1/N) sum_i A_i (e_{a_i} - pi), A_i = (R_i - mean) / std, 0 where all are equal: the
// definition, without tensors.
std::array<double, 3> grpo_reference(int n, int ddof) {
  const std::array<double, 3> theta = {0.3, -0.2, 0.5}, reward = {0, 0.3, 1};
  std::array<double, 3> pi, sum = {};
  double z = 0;
  for (const double x : theta) z += std::exp(x);
  for (int i = 0; i < 3; ++i) pi[i] = std::exp(theta[i]) / z;
  const int groups = static_cast<int>(std::lround(std::pow(3, n)));
  for (int code = 0; code < groups; ++code) {
    std::vector<int> arm;
    double probability = 1, mean = 0, square = 0;
    for (int i = 0, rest = code; i < n; ++i, rest /= 3) arm.push_back(rest % 3);
    for (const int a : arm) probability *= pi[a], mean += reward[a] / n;
    for (const int a : arm) square += (reward[a] - mean) * (reward[a] - mean);
    if (std::equal(arm.begin() + 1, arm.end(), arm.begin())) continue;
    const double deviation = std::sqrt(square / (n - ddof));
    for (const int a : arm)
      for (int k = 0; k < 3; ++k)
        sum[k] += probability / n * (reward[a] - mean) / deviation * ((a == k) - pi[k]);
  }
  return sum;
}

TEST(Bandit, GrpoIsBiasedByExactlyItsStandardDeviation) {
  const TokenTree f1 = bandit();
  const Tensor truth = f1.objective_gradient();
  const std::array<double, 3> cosine = {0.99255, 0.99798, 0.99953};
  const std::array<double, 3> population = {1.1878, 1.6158, 1.8115};
  const std::array<double, 3> sample = {0.840, 1.319, 1.569};
  for (int n = 2; n <= 4; ++n) {
    for (const bool sample_std : {false, true}) {
      EstimatorOptions options = estimator_named("grpo");
      options.std_floor = 0;
      options.sample_std = sample_std;
      const Tensor mean = fixtures::expected_direction(f1, n, options);
      const std::array<double, 3> expected = grpo_reference(n, sample_std ? 1 : 0);
      for (int k = 0; k < 3; ++k)
        EXPECT_NEAR(mean[0][k].item<double>(), expected[k], kExact)
            << n << " " << sample_std;
      // the catalogue's digits
      EXPECT_NEAR(fixtures::cosine(mean, truth), cosine[n - 2], 5e-6);
      EXPECT_NEAR(fixtures::norm_ratio(mean, truth),
                  sample_std ? sample[n - 2] : population[n - 2],
                  sample_std ? 5e-4 : 5e-5);
    }
  }
}

// KL of two categorical distributions, and its gradient in the first one's logits.
std::pair<double, Tensor> divergence(const TokenTree& tree, const Tensor& reference) {
  const Tensor p = tree.logits.log_softmax(1), q = reference.log_softmax(1);
  const Tensor kl = (p.exp() * (p - q)).sum();
  return {kl.item<double>(), torch::autograd::grad({kl}, {tree.logits})[0]};
}

TEST(Bandit, K2HasTheGradientOfKlAndK3ItsValue) {
  TokenTree f1 = bandit();
  f1.reward = torch::zeros({3}, torch::kFloat64);  // only the KL term moves anything
  const Tensor reference = torch::tensor({{-0.4, 0.1, 0.9}}, torch::kFloat64);
  const auto [kl, gradient] = divergence(f1, reference);
  const Tensor probability = f1.probability(f1.logits).detach();
  for (const KlKind kind : {KlKind::kK2, KlKind::kK3}) {
    EstimatorOptions options = estimator_named("rloo");
    options.kl = kind;
    options.kl_coefficient = 0.7;
    Tensor mean = torch::zeros_like(f1.logits);
    double value = 0, k3_ref = 0;
    for (std::int64_t arm = 0; arm < 3; ++arm) {
      const Tensor rows = torch::tensor({arm}), everything = torch::arange(1);
      Rollout rollout = f1.rollout(rows);
      rollout.logp_ref = f1.logp_under(reference, rows);
      Estimator estimator(options);
      const PreparedBatch batch = estimator.prepare(rollout);
      EXPECT_FALSE(batch.no_signal) << "the KL pulls";
      Metrics sums;
      const Tensor loss =
          estimator.loss(f1.logp(rows), rollout, batch, everything, everything, sums);
      mean = mean + probability[arm] * torch::autograd::grad({loss}, {f1.logits})[0];
      value += (probability[arm] * loss).item<double>();
      k3_ref += probability[arm].item<double>() * estimator_metrics(sums).at("k3_ref");
    }
    if (kind == KlKind::kK2) {
      EXPECT_LT(fixtures::largest_difference(mean, 0.7 * gradient), kExact);
    } else {
      EXPECT_NEAR(value, 0.7 * kl, kExact);
    }
    EXPECT_NEAR(k3_ref, kl, kExact);
  }
}

// Rolled out by mu, trained as pi: at length 1 the weight pi / mu makes the direction
// exact.
TEST(Bandit, MiniRlUndoesTheMismatchOfTheRollout) {
  const TokenTree f1 = bandit();
  const Tensor mu = torch::tensor({{0.5, 0.1, 0.2}}, torch::kFloat64);
  const Tensor probability = f1.probability(mu);
  EstimatorOptions corrected = estimator_named("minirl"),
                   plain = estimator_named("reinforce");
  corrected.advantage = AdvantageKind::kReinforce;
  corrected.minirl_cap = 0;
  double error[2];
  for (int with = 0; with < 2; ++with) {
    Tensor mean = torch::zeros_like(f1.logits);
    for (std::int64_t arm = 0; arm < 3; ++arm) {
      const Tensor rows = torch::tensor({arm});
      Rollout rollout = f1.rollout(rows);
      rollout.logp_rollout = f1.logp_under(mu, rows);
      Estimator estimator(with ? corrected : plain);
      mean = mean + probability[arm] * fixtures::direction(f1, rows, rollout, estimator);
    }
    error[with] = fixtures::largest_difference(mean, f1.objective_gradient());
  }
  EXPECT_LT(error[1], kExact);
  EXPECT_GT(error[0], 1e-2) << "the case has no mismatch to undo";
}

}  // namespace
}  // namespace pion::lab
