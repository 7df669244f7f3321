// SPDX-License-Identifier: Apache-2.0
// What leaves the loss: filters, mismatch correction; and what is refused as input.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "lab/algorithms/policy_gradient/estimator.h"
#include "tests/thrown_message.h"

namespace pion::lab {
namespace {

using torch::Tensor;

// Four groups of two responses of three tokens; every field given, no mismatch.
Rollout four_pairs() {
  Rollout r;
  r.mask = torch::ones({8, 3}, torch::kBool);
  r.logp_old = torch::full({8, 3}, -1.0, torch::kFloat64);
  r.logp_rollout = r.logp_old.clone();
  r.logp_ref = r.logp_old.clone();
  r.group = torch::tensor({0, 0, 1, 1, 2, 2, 3, 3});
  r.correct = torch::tensor({1, 0, 1, 1, 0, 0, 0, 1}).to(torch::kBool);
  r.reward = torch::tensor({1.0, 0.1, 1.0, 1.1, 0.0, 0.1, 0.0, 1.0}, torch::kFloat64);
  r.truncated = torch::tensor({0, 1, 0, 0, 1, 0, 0, 0}).to(torch::kBool);
  return r;
}

std::vector<std::int64_t> rows_left(const PreparedBatch& batch) {
  const Tensor rows = batch.mask.any(1).nonzero().flatten();
  return {rows.data_ptr<std::int64_t>(), rows.data_ptr<std::int64_t>() + rows.numel()};
}

TEST(Filters, DynamicSamplingLooksAtAccuracyNotAtTheShapedReward) {
  EstimatorOptions options = estimator_named("dapo");
  const Rollout r = four_pairs();
  const PreparedBatch batch = Estimator(options).prepare(r);
  EXPECT_EQ(rows_left(batch), (std::vector<std::int64_t>{0, 1, 6, 7}));
  EXPECT_EQ(batch.metrics.at("dropped_groups"), 0.5);
  EXPECT_EQ(batch.metrics.at("zero_spread_groups"), 0);
  EXPECT_TRUE(torch::equal(mixed_groups(r, FilterMetric::kCorrect), batch.mask.any(1)));
  Rollout easy = r;
  easy.correct = torch::ones({8}, torch::kBool);
  EXPECT_TRUE(Estimator(options).prepare(easy).no_signal);
}

// verl's filter_groups keeps groups whose metric has a standard deviation above 0.
TEST(Filters, DynamicSamplingLooksAtTheRewardIfAskedTo) {
  EstimatorOptions options = estimator_named("dapo");
  options.filter_metric = FilterMetric::kReward;
  Rollout r = four_pairs();
  r.correct = torch::zeros({8}, torch::kBool);  // a graded reward: nothing is right
  r.reward = torch::tensor({0.35, 0.7, 0.35, 0.35, 0.7, 0.7, 0.35, 0.7}, torch::kFloat64);
  EXPECT_TRUE(Estimator(estimator_named("dapo")).prepare(r).no_signal);
  EXPECT_EQ(rows_left(Estimator(options).prepare(r)),
            (std::vector<std::int64_t>{0, 1, 6, 7}));
  r.correct = torch::Tensor();
  EXPECT_EQ(rows_left(Estimator(options).prepare(r)),
            (std::vector<std::int64_t>{0, 1, 6, 7}));
  options.dynamic_sampling = false;
  expect_says(message_of([&] { check_estimator(options); }),
              "filter_metric has no effect without dynamic_sampling");
}

TEST(Filters, TruncatedResponsesLeaveTheLossButNotTheBaseline) {
  EstimatorOptions options = estimator_named("rloo");
  const PreparedBatch all = Estimator(options).prepare(four_pairs());
  options.drop_truncated = true;
  const PreparedBatch batch = Estimator(options).prepare(four_pairs());
  EXPECT_EQ(rows_left(batch), (std::vector<std::int64_t>{0, 2, 3, 5, 6, 7}));
  EXPECT_TRUE(torch::equal(batch.advantage, all.advantage));
  EXPECT_EQ(batch.metrics.at("dropped_truncated"), 0.25);
}

EstimatorOptions corrected() {
  EstimatorOptions options = estimator_named("grpo");
  options.mismatch_correction = true;
  return options;
}

TEST(Mismatch, RejectsByTheGeometricMeanAndByOneToken) {
  Rollout r = four_pairs();
  r.logp_rollout[0] = r.logp_old[0] - 0.002;  // mean above 1.001
  r.logp_rollout[1] = r.logp_old[1] + 0.002;  // below 0.999
  // mean 1, w e^-10
  r.logp_rollout[2] = r.logp_old[2] + torch::tensor({10.0, -5.0, -5.0});
  r.logp_rollout[3] = r.logp_old[3] + torch::tensor({1.0, -1.0, 0.0});
  r.logp_rollout[4] = r.logp_old[4] + 0.0009;
  const PreparedBatch batch = Estimator(corrected()).prepare(r);
  EXPECT_EQ(rows_left(batch), (std::vector<std::int64_t>{3, 4, 5, 6, 7}));
  EXPECT_EQ(batch.metrics.at("mismatch_rejected"), 3. / 8);
  EXPECT_EQ(batch.metrics.at("mismatch_vetoed"), 1. / 8);
  EXPECT_NEAR(batch.weight[3][0].item<double>(), std::exp(-1), 1e-12);
  EXPECT_EQ(batch.weight[3][1].item<double>(), 2.0);  // min(e, 2)
  EXPECT_EQ(batch.weight[3][2].item<double>(), 1.0);
  const PreparedBatch plain = Estimator(estimator_named("grpo")).prepare(r);
  EXPECT_TRUE(torch::equal(batch.advantage, plain.advantage)) << "baselines stay";
}

TEST(Mismatch, TheWeightMultipliesTheTokenLoss) {
  Rollout r = four_pairs();
  r.logp_rollout[0] = r.logp_old[0] + torch::tensor({0.5, -0.5, 0.0});
  Estimator estimator(corrected());
  Tensor logp = r.logp_old.clone().requires_grad_();
  Metrics sums;
  const Tensor all = torch::arange(8);
  const PreparedBatch batch = estimator.prepare(r);
  estimator.loss(logp, r, batch, all, all, sums).backward();
  const double unit = logp.grad()[0][2].item<double>();
  EXPECT_NEAR(logp.grad()[0][0].item<double>(), std::exp(-0.5) * unit, 1e-14);
  EXPECT_NEAR(logp.grad()[0][1].item<double>(), std::exp(0.5) * unit, 1e-14);
}

TEST(Mismatch, MoreThanHalfRejectedIsAnError) {
  Rollout r = four_pairs();
  for (int i = 0; i < 4; ++i) r.logp_rollout[i] = r.logp_old[i] + 0.1;
  EXPECT_EQ(message_of([&] { Estimator(corrected()).prepare(r); }), "")
      << "half is allowed";
  r.logp_rollout[4] = r.logp_old[4] + 0.1;
  const std::string message = message_of([&] { Estimator(corrected()).prepare(r); });
  expect_says(message, "5 of 8");
  expect_says(message, "temperature");
}

// --------------------------------------------------------------------------------
// refusals

struct BadInput {
  const char* what;
  std::function<void(EstimatorOptions&, Rollout&)> change;
  std::vector<const char*> says;
};

std::vector<BadInput> bad_inputs() {
  using O = EstimatorOptions&;
  using R = Rollout&;
  const double nan = std::numeric_limits<double>::quiet_NaN(),
               infinite = std::numeric_limits<double>::infinity();
  return {
      {"no mask", [](O, R r) { r.mask = Tensor(); }, {"mask"}},
      {"no old", [](O, R r) { r.logp_old = Tensor(); }, {"logp_old"}},
      {"no reward", [](O, R r) { r.reward = Tensor(); }, {"reward"}},
      {"no group", [](O, R r) { r.group = Tensor(); }, {"group", "grpo"}},
      {"minirl without rollout",
       [](O o, R r) { o = estimator_named("minirl"), r.logp_rollout = Tensor(); },
       {"logp_rollout", "minirl"}},
      {"correction without rollout",
       [](O o, R r) { o.mismatch_correction = true, r.logp_rollout = Tensor(); },
       {"logp_rollout", "mismatch_correction"}},
      {"kl without reference",
       [](O o, R r) { o.kl = KlKind::kK3, o.kl_coefficient = 1, r.logp_ref = Tensor(); },
       {"logp_ref", "k3"}},
      {"k1 without reference",
       [](O o, R r) {
         o.kl = KlKind::kK1InReward, o.kl_coefficient = 1, r.logp_ref = Tensor();
       },
       {"logp_ref", "k1_in_reward"}},
      {"dynamic sampling without accuracy",
       [](O o, R r) { o.dynamic_sampling = true, r.correct = Tensor(); },
       {"correct", "dynamic_sampling"}},
      {"overlong filter without flags",
       [](O o, R r) { o.drop_truncated = true, r.truncated = Tensor(); },
       {"truncated", "drop_truncated"}},
      {"NaN reward", [=](O, R r) { r.reward[3] = nan; }, {"reward", "nan", "response 3"}},
      {"infinite reward",
       [=](O, R r) { r.reward[5] = infinite; },
       {"reward", "inf", "response 5"}},
      {"NaN log-probability",
       [=](O, R r) { r.logp_old[2][1] = nan; },
       {"logp_old", "nan", "response 2", "token 1"}},
      {"infinite reference",
       [=](O, R r) { r.logp_ref[6][0] = -infinite; },
       {"logp_ref", "-inf", "response 6"}},
      {"shape",
       [](O, R r) { r.reward = r.reward.slice(0, 0, 7); },
       {"reward", "[8]", "[7]"}},
      {"shape of reference",
       [](O, R r) { r.logp_ref = r.logp_ref.slice(1, 0, 2); },
       {"logp_ref", "[8, 3]", "[8, 2]"}},
      {"dtype of mask",
       [](O, R r) { r.mask = r.mask.to(torch::kInt64); },
       {"mask", "bool"}},
      {"dtype of group", [](O, R r) { r.group = r.group.to(torch::kInt32); }, {"group"}},
      {"dtype",
       [](O, R r) { r.logp_old = r.logp_old.to(torch::kBFloat16); },
       {"logp_old"}},
      {"mixed dtypes",
       [](O, R r) { r.logp_ref = r.logp_ref.to(torch::kFloat32); },
       {"logp_ref", "logp_old"}},
  };
}

TEST(BadInput, IsNamedAndChangesNothing) {
  for (const BadInput& bad : bad_inputs()) {
    EstimatorOptions options;
    Rollout r = four_pairs();
    bad.change(options, r);
    Estimator estimator(options);
    const std::string message = message_of([&] { estimator.prepare(r); });
    EXPECT_NE(message, "") << bad.what << " must be refused";
    expect_says(message, "Estimator::prepare");
    for (const char* part : bad.says) expect_says(message, part);
  }
  EstimatorOptions options = estimator_named("reinforce");
  Estimator estimator(options);
  estimator.set_baseline(0.5);
  Rollout r = four_pairs();
  r.reward[0] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_NE(message_of([&] { estimator.prepare(r); }), "");
  EXPECT_EQ(estimator.baseline(), 0.5);
}

TEST(BadInput, NoKlNeedsNoReference) {
  EstimatorOptions options;
  options.kl = KlKind::kK3;  // with coefficient 0, as a grid over it may have
  Rollout r = four_pairs();
  r.logp_ref = Tensor();
  EXPECT_EQ(message_of([&] { Estimator(options).prepare(r); }), "");
}

TEST(BadInput, OfTheLossIsNamed) {
  const Rollout r = four_pairs();
  Estimator estimator(estimator_named("grpo"));
  const PreparedBatch batch = estimator.prepare(r);
  const Tensor rows = torch::tensor({4, 6}), all = torch::arange(8);
  const auto message = [&](const Tensor& logp, const Tensor& part, const Tensor& whole) {
    Metrics sums;
    return message_of([&] { estimator.loss(logp, r, batch, part, whole, sums); });
  };
  Tensor logp = torch::full({2, 3}, -1.0, torch::kFloat64);
  EXPECT_EQ(message(logp, rows, all), "");
  expect_says(message(logp, rows, torch::tensor({4, 5})), "among those of minibatch");
  const Tensor none = torch::empty({0}, torch::kInt64);
  expect_says(message(logp.slice(0, 0, 0), none, none), "must hold a row");
  EXPECT_EQ(message(logp.slice(0, 0, 0), none, all), "") << "a part without rows adds 0";
  expect_says(message(logp.slice(1, 0, 2), rows, all), "[2, 3]");
  expect_says(message(logp.to(torch::kFloat32), rows, all), "dtype");
  logp[1][2] = std::numeric_limits<double>::quiet_NaN();
  expect_says(message(logp, rows, all), "response 6, token 2");
}

}  // namespace
}  // namespace pion::lab
