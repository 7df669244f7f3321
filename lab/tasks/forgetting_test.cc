// SPDX-License-Identifier: Apache-2.0
#include "lab/tasks/forgetting.h"

#include <cmath>

#include "lab/tasks/control_task_test.h"

namespace pion::lab {
namespace {

using torch::Tensor;

Tensor wide(const Tensor& t) { return t.detach().to(at::kDouble); }

// The loss of the definition in double, differentiated by autograd: -mean(A log pi) with
// A held fixed, or the squared error.
TwoLayerNet reference_gradient(const Forgetting& task, const Forgetting::Batch& batch,
                               double exploration, bool exact) {
  const Tensor w1 = wide(task.student().w1).requires_grad_();
  const Tensor w2 = wide(task.student().w2).requires_grad_();
  const Tensor x = wide(batch.inputs), eps = wide(batch.exploration);
  const auto net = [&](const Tensor& a, const Tensor& b) {
    return x.mm(a.t()).relu().mm(b.t());
  };
  const Tensor f = net(w1, w2),
               goal = net(wide(task.teacher(2).w1), wide(task.teacher(2).w2));
  Tensor loss;
  if (exact) {
    loss = 0.5 * (f - goal).square().sum() / x.size(0);
  } else {
    const Tensor action = (f.unsqueeze(1) + exploration * eps).detach();
    const Tensor reward = -(action - goal.unsqueeze(1)).square().sum(2);
    const Tensor advantage =
        (reward - reward.mean(1, true)) / (reward.std(1, true, true) + 1e-6);
    const Tensor log_pi =
        -(action - f.unsqueeze(1)).square().sum(2) / (2 * exploration * exploration);
    loss = -(advantage * log_pi).mean();
  }
  loss.backward();
  return {w1.grad(), w2.grad()};
}

TEST(Forgetting, GradientIsAutogradOfTheDefinitionInDouble) {
  for (const bool exact : {false, true}) {
    Forgetting task(
        {.prompts = 5, .samples = 3, .exploration = 0.7, .exact_gradient = exact});
    run_task(task, sgd_rule(1e-4));  // somewhere else than at the start
    const Forgetting::Batch batch = task.draw();
    const TwoLayerNet found = task.gradient(batch);
    const TwoLayerNet expected = reference_gradient(task, batch, 0.7, exact);
    // two layers of 64 and 128 products; advantages divide a difference of rewards that
    // is up to 100 times smaller than the rewards
    const double tolerance = (64 + 128) * 0x1p-24 * 100;
    EXPECT_LT((found.w1 - expected.w1).norm().item<double>(),
              tolerance * expected.w1.norm().item<double>());
    EXPECT_LT((found.w2 - expected.w2).norm().item<double>(),
              tolerance * expected.w2.norm().item<double>());
  }
}

TEST(Forgetting, SecondTeacherIsARankTwoChangeOfTheStatedNorm) {
  Forgetting task({.change = 0.4});
  const auto check = [](const Tensor& before, const Tensor& after) {
    const Tensor s = std::get<1>(at::linalg_svd(wide(after) - wide(before)));
    const double norm = wide(before).norm().item<double>();
    EXPECT_NEAR(s.norm().item<double>(), 0.4 * norm, 1e-5 * norm);
    EXPECT_GT(s[1].item<double>(), 0.1 * norm);
    EXPECT_LT(s[2].item<double>(), 128 * 0x1p-24 * norm);
  };
  check(task.teacher(1).w1, task.teacher(2).w1);
  check(task.teacher(1).w2, task.teacher(2).w2);
  const Json start = task.evaluate();
  EXPECT_EQ(start["forgotten"], 0.0);
  EXPECT_EQ(start["task2_loss"], 1.0);
}

TEST(Forgetting, EvaluationDrawsNothing) {
  Forgetting task({.seed = 9}), twin({.seed = 9});
  task.evaluate();
  EXPECT_TRUE(torch::equal(task.draw().exploration, twin.draw().exploration));
}

TEST(Forgetting, RewardsAloneTeachTheSecondTask) {
  Forgetting task({.seed = 10});
  const Json end = run_task(task, sgd_rule(4e-4));
  // 0.05 +- 0.01 over seeds
  EXPECT_LT(end["task2_loss"].get<double>(), 0.1);
  EXPECT_GT(end["forgotten"].get<double>(), 0.0);
}

TEST(Forgetting, ResumeChangesNothing) {
  const auto make = [] {
    return std::make_unique<Forgetting>(ForgettingOptions{.steps = 8, .seed = 7});
  };
  expect_resume_changes_nothing(make, sgd_rule(1e-3));
  expect_resume_changes_nothing(make, muon_rule(1e-3));
}

TEST(Forgetting, RefusesTheStateOfAnotherTaskAndOptionsOutOfRange) {
  Forgetting task({});
  EXPECT_THROW(task.load({}, Json::object()), std::invalid_argument);
  EXPECT_THROW(Forgetting({.samples = 1}), std::invalid_argument);
  EXPECT_THROW(Forgetting({.change = 0}), std::invalid_argument);
  EXPECT_THROW(Forgetting({.exploration = 0}), std::invalid_argument);
}

}  // namespace
}  // namespace pion::lab
