// SPDX-License-Identifier: Apache-2.0
#include "lab/tasks/least_squares.h"

#include <cmath>

#include "lab/tasks/control_task_test.h"

namespace pion::lab {
namespace {

// The exact polar factor, without momentum, at scale 1.
Rule polar_rule(double lr) {
  LowRankMuonRule rule;
  rule.lr = lr;
  rule.rank = 8;
  rule.momentum = 0.0;
  rule.scale = Scale::kOfficial;
  rule.scale_factor = 1.0 / std::sqrt(20.0);
  return rule;
}

Rule plain_sgd(double lr) {
  SgdRule rule;
  rule.lr = lr;
  rule.momentum = 0.0;
  return rule;
}

// Mean loss of the last 100 updates at a constant rate.
double floor_of(const Rule& rule, std::int64_t steps) {
  LeastSquares task({.steps = steps, .seed = 1});
  const auto optimizer = optimizer_for(task, rule);
  double total = 0.0;
  for (std::int64_t i = 0; i < steps; ++i) {
    const double loss = task.update(i, *optimizer)["loss"];
    if (i >= steps - 100) total += loss / 100;
  }
  return total;
}

TEST(LeastSquares, GradientAndLossAreTheDefinitionInDouble) {
  LeastSquares task({.seed = 4});
  torch::NoGradGuard no_grad;
  task.weight().normal_();
  const auto wide = [](const torch::Tensor& t) { return t.to(at::kDouble); };
  const torch::Tensor a = at::diag(wide(task.row_scales()).flatten());
  const torch::Tensor b = at::diag(wide(task.column_scales()).flatten());
  const torch::Tensor c = a.mm(wide(task.solution())).mm(b);
  const torch::Tensor residual = a.mm(wide(task.weight())).mm(b) - c;
  const double loss = 0.5 * residual.square().sum().item<double>();
  // difference and two products before the square, all terms positive
  EXPECT_NEAR(task.loss(), loss, 12 * 0x1p-24 * loss);
  const torch::Tensor expected = a.mm(residual).mm(b);
  // the definition rounds in double; the task makes five roundings of each entry
  EXPECT_TRUE(torch::allclose(wide(task.gradient()), expected, 6 * 0x1p-24, 1e-12));
  for (int i = 0; i < 20; ++i) {
    EXPECT_NEAR(task.row_scales()[i][0].item<double>(), std::pow(10.0, -2.0 * i / 19),
                4e-7);
  }
  EXPECT_NEAR(task.column_scales()[0][7].item<double>(), 0.1, 1e-7);
}

TEST(LeastSquares, PolarStepsOfConstantSizeStopAtAFloorThatScalesWithTheirSquare) {
  const double coarse = floor_of(polar_rule(0.1), 2000);
  const double fine = floor_of(polar_rule(0.01), 20000);
  // 1.8e-3 and 1.84e-5 were found for one X*; six other draws lie within 1.25 of them. At
  // 0.01 the flattest directions take 10000 steps to settle.
  EXPECT_GT(coarse, 1.8e-3 / 2);
  EXPECT_LT(coarse, 1.8e-3 * 2);
  EXPECT_GT(fine, 1.84e-5 / 2);
  EXPECT_LT(fine, 1.84e-5 * 2);
}

TEST(LeastSquares, GradientDescentHasNoFloor) {
  // the largest eigenvalue of the Hessian is 1: below 2 every step lowers the loss
  LeastSquares task({.steps = 2000, .seed = 1});
  const auto optimizer = optimizer_for(task, plain_sgd(1.0));
  double before = task.loss();
  for (std::int64_t i = 0; i < 2000; ++i) {
    const double loss = task.update(i, *optimizer)["loss"];
    ASSERT_LT(loss, before) << "step " << i;
    before = loss;
  }
}

TEST(LeastSquares, ResumeChangesNothing) {
  const auto make = [] {
    return std::make_unique<LeastSquares>(LeastSquaresOptions{.steps = 20, .seed = 2});
  };
  expect_resume_changes_nothing(make, MuonRule{});
  expect_resume_changes_nothing(make, plain_sgd(0.1));
}

TEST(LeastSquares, RefusesTheStateOfAnotherSeedAndOptionsOutOfRange) {
  LeastSquares task({.seed = 2});
  EXPECT_THROW(task.load({}, Json::object()), std::invalid_argument);
  EXPECT_THROW(task.load({}, {{"seed", 3}}), std::invalid_argument);
  EXPECT_THROW(LeastSquares({.rows = 0}), std::invalid_argument);
  EXPECT_THROW(LeastSquares({.column_decades = -1}), std::invalid_argument);
}

}  // namespace
}  // namespace pion::lab
