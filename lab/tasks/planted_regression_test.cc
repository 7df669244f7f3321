// SPDX-License-Identifier: Apache-2.0
#include "lab/tasks/planted_regression.h"

#include <cmath>
#include <functional>

#include "lab/tasks/control_task_test.h"
#include "lab/tasks/equal_rms.h"

namespace pion::lab {
namespace {

using torch::Tensor;

Rule pion_rule(double lr, double cutoff) {
  PionRule rule;
  rule.lr = lr;
  rule.cutoff = {Cutoff::Kind::kValue, cutoff};
  return rule;
}
Rule adamw_rule(double lr) {
  AdamWRule rule;
  rule.lr = lr;
  rule.beta1 = 0.95;
  rule.beta2 = 0.99;
  rule.eps = 1e-12;
  return rule;
}

TEST(PlantedRegression, AnswerHasTheStatedSpectrum) {
  for (const std::int64_t rank : {1, 4, 24}) {
    PlantedRegression task({.width = 24, .rank = rank, .seed = 3});
    const Tensor s = std::get<1>(at::linalg_svd(task.target().to(at::kDouble)));
    double squares = 0.0;
    std::vector<double> d;
    for (std::int64_t i = 0; i < rank; ++i) {
      d.push_back(rank == 1 ? 1.0 : 1.0 - 0.6 * static_cast<double>(i) / (rank - 1.0));
      squares += d.back() * d.back();
    }
    for (std::int64_t i = 0; i < 24; ++i) {
      const double expected = i < rank ? d[i] * std::sqrt(24 / squares) : 0.0;
      // QR and product of 24 columns in f32: 24 roundings on a norm of 5
      EXPECT_NEAR(s[i].item<double>(), expected, 24 * 0x1p-24 * 5) << "rank " << rank;
    }
  }
}

TEST(PlantedRegression, GradientIsTheMeanOverSamplesOfResidualTimesInput) {
  PlantedRegression task(
      {.width = 9, .rank = 2, .batch = 5, .noise = 0.7, .input_decay = 0.5});
  torch::NoGradGuard no_grad;
  task.weight().normal_();
  const PlantedRegression::Batch batch = task.draw();
  const Tensor gradient = task.gradient(batch);
  const Tensor w = task.weight().to(at::kDouble), target = task.target().to(at::kDouble);
  const Tensor x = batch.inputs.to(at::kDouble), z = batch.noise.to(at::kDouble);
  const auto at = [](const Tensor& m, int i, int j) { return m[i][j].item<double>(); };
  for (int i = 0; i < 9; ++i) {
    for (int j = 0; j < 9; ++j) {
      double expected = 0.0, magnitude = 0.0;
      for (int b = 0; b < 5; ++b) {
        double residual = at(z, i, b), terms = std::abs(residual);
        for (int k = 0; k < 9; ++k) {
          const double error = at(w, i, k) - at(target, i, k);
          residual += error * at(x, k, b);
          terms += std::abs(error * at(x, k, b));
        }
        expected += residual * at(x, j, b) / 5;
        magnitude += terms * std::abs(at(x, j, b)) / 5;
      }
      // 9 + 5 terms, the difference, the noise, the quotient: at most 18 roundings of any
      // term
      EXPECT_NEAR(at(gradient, i, j), expected, 18 * 0x1p-24 * magnitude)
          << i << "," << j;
    }
  }
}

TEST(PlantedRegression, ExcessIsTheExpectedLossAboveTheNoise) {
  PlantedRegression task({.width = 12, .rank = 3, .input_decay = 0.25});
  const Tensor e = (task.weight() - task.target()).to(at::kDouble);
  double mean_square = 0.0, expected = 0.0;
  for (int j = 0; j < 12; ++j) mean_square += std::pow(j + 1.0, -0.5) / 12;
  for (int i = 0; i < 12; ++i) {
    for (int j = 0; j < 12; ++j) {
      const double error = e[i][j].item<double>();
      expected += 0.5 * error * error * std::pow(j + 1.0, -0.5) / mean_square;
    }
  }
  // each term: difference, deviation (3), product, square, all positive
  EXPECT_NEAR(task.excess(), expected, 16 * 0x1p-24 * expected);
  EXPECT_DOUBLE_EQ(task.evaluate()["excess_ratio"], 1.0);
}

// The rules of the float64 reference, from their definitions.
Tensor iterate(Tensor x, const std::vector<std::array<double, 3>>& coefficients) {
  x = x / x.norm();
  for (const auto& [a, b, c] : coefficients) {
    const Tensor gram = x.mm(x.t());
    x = a * x + (b * gram + c * gram.mm(gram)).mm(x);
  }
  return x;
}

// a = 1.875 while the image t of tau stays below sqrt(2/3), one step that puts it there,
// a = 0.
std::vector<std::array<double, 3>> filter(double tau, std::size_t steps) {
  const double fixed = std::sqrt(2.0 / 3.0);
  const auto image = [](double a, double t) {
    return a * t + (2.5 - 2 * a) * std::pow(t, 3) + (a - 1.5) * std::pow(t, 5);
  };
  std::vector<double> a;
  double t = tau;
  for (; a.size() + 1 < steps && image(1.875, t) < fixed; t = image(1.875, t))
    a.push_back(1.875);
  a.push_back((fixed - 2.5 * std::pow(t, 3) + 1.5 * std::pow(t, 5)) /
              (t * std::pow(1 - t * t, 2)));
  a.resize(steps, 0.0);
  std::vector<std::array<double, 3>> out;
  for (const double each : a) out.push_back({each, 2.5 - 2 * each, each - 1.5});
  return out;
}

struct ReferenceRule {
  Rule rule;
  std::function<Tensor(const Tensor& momentum, const Tensor& square)> direction;
  double
      sensitivity;  // the direction's relative error per relative error of the gradient
};

// Every increment of the f32 task is held to the increment of a float64 loop that starts
// the step at the same weight and keeps its own momentum.
TEST(PlantedRegression, FollowsAFloat64LoopStepByStep) {
  const std::int64_t n = 24, batch = 8, steps = 12;
  const double lr = 2e-3;
  const std::vector<ReferenceRule> rules = {
      // the sum form of momentum
      {sgd_rule(lr), [](const Tensor& m, const Tensor&) { return m / 0.05; }, 1},
      // an entry of m may be 100 times smaller than its terms
      {adamw_rule(lr),
       [](const Tensor& m, const Tensor& v) { return m / (v.sqrt() + 1e-12); }, 100},
      // slope at 0: 3.4445^5 = 485
      {muon_rule(lr),
       [](const Tensor& m, const Tensor&) {
         return iterate(m, std::vector(5, std::array{3.4445, -4.7750, 2.0315}));
       },
       485},
      // slope at most 1.875^2 (two promotions) 1.667^3
      {pion_rule(lr, 0.3),
       [](const Tensor& m, const Tensor&) { return iterate(m, filter(0.3, 5)); }, 17},
  };
  for (const ReferenceRule& reference : rules) {
    const PlantedOptions options{
        .width = n, .rank = 4, .batch = batch, .steps = steps, .seed = 5};
    PlantedRegression task(options),
        twin(options);  // the twin only draws the same batches
    Rule rule = reference.rule;
    if (is_matrix_rule(rule)) set_rule_key(rule, "precision", "f32");
    const auto optimizer = optimizer_for(task, rule);
    Tensor m = torch::zeros({n, n}, at::kDouble), v = torch::zeros({n, n}, at::kDouble);
    for (std::int64_t t = 0; t < steps; ++t) {
      const Tensor before = task.weight().detach().to(at::kDouble);
      const auto [x32, z32] = twin.draw();
      const Tensor x = x32.to(at::kDouble), z = z32.to(at::kDouble);
      const Tensor g = ((before - task.target()).mm(x) + z).mm(x.t()) / batch;
      m = 0.95 * m + 0.05 * g;
      v = 0.99 * v + 0.01 * g * g;
      const Tensor d = reference.direction(m, v / (1 - std::pow(0.99, t + 1)));
      const double rate = lr * (1 - static_cast<double>(t) / steps);
      const Tensor increment = -rate * d * (n / (d.norm().item<double>() + 1e-4));

      run_updates(task, *optimizer, t, t + 1);
      const Tensor taken = task.weight().detach().to(at::kDouble) - before;
      // the gradient: sums of n + batch products, entries up to 4 times smaller than
      // their terms
      const double relative = 4 * (n + batch) * 0x1p-24 * reference.sensitivity;
      const double rounding = 0x1p-24 * before.norm().item<double>();
      EXPECT_LE((taken - increment).norm().item<double>(), relative * rate * n + rounding)
          << rule_name(reference.rule) << " step " << t;
    }
  }
}

TEST(PlantedRegression, FilterBeatsSgdBeatsMuonAtTheirTunedRatesOnARankFourChange) {
  // mean and standard deviation over fresh seeds of an independent float32 program; 5
  // deviations leave one failure in a million, and the three intervals do not touch
  struct Case {
    Rule rule;
    double mean, deviation;
  };
  for (const auto& [rule, mean, deviation] :
       {Case{pion_rule(1.31e-3, 0.3), 0.0081, 0.0003},
        Case{sgd_rule(1.31e-3), 0.0287, 0.0006},
        Case{muon_rule(8.39e-3), 0.1069, 0.0016}}) {
    PlantedRegression task({.seed = 10});
    const double score = run_task(task, rule)["excess_ratio"];
    EXPECT_NEAR(score, mean, 5 * deviation) << rule_name(rule);
  }
}

TEST(PlantedRegression, ResumeChangesNothing) {
  const auto make = [] {
    return std::make_unique<PlantedRegression>(
        PlantedOptions{.width = 16, .rank = 2, .batch = 4, .steps = 10, .seed = 7});
  };
  for (const Rule& rule :
       {sgd_rule(1e-2), adamw_rule(1e-2), muon_rule(1e-2), pion_rule(1e-2, 0.3)}) {
    expect_resume_changes_nothing(make, rule);
  }
}

TEST(PlantedRegression, RefusesTheStateOfAnotherTask) {
  PlantedRegression task({.width = 16, .rank = 2});
  EXPECT_THROW(task.load({}, Json::object()), std::invalid_argument);
  EXPECT_THROW(task.load({{"generator", torch::zeros(3, at::kByte)}}, Json::object()),
               std::invalid_argument);
}

TEST(PlantedRegression, RefusesOptionsOutOfRange) {
  EXPECT_THROW(PlantedRegression({.width = 0}), std::invalid_argument);
  EXPECT_THROW(PlantedRegression({.width = 8, .rank = 9}), std::invalid_argument);
  EXPECT_THROW(PlantedRegression({.batch = 0}), std::invalid_argument);
  EXPECT_THROW(PlantedRegression({.steps = 0}), std::invalid_argument);
  EXPECT_THROW(PlantedRegression({.noise = -1}), std::invalid_argument);
  EXPECT_THROW(PlantedRegression({.input_decay = -1}), std::invalid_argument);
}

TEST(EqualRms, EveryRuleMovesTheWeightByLrTimesTheFactor) {
  for (const Rule& rule :
       {sgd_rule(3e-3), adamw_rule(3e-3), muon_rule(3e-3), pion_rule(3e-3, 0.1)}) {
    PlantedRegression task({.width = 16, .rank = 2, .batch = 8});
    const auto optimizer = optimizer_for(task, rule);
    optimizer->set_lr_factor(0.5);
    task.update(0, *optimizer);  // from W = 0
    const double rms = task.weight().norm().item<double>() / 16;
    // the floor takes 1e-4 / ||D||; ||D|| is at least 0.9 here, one direction that passes
    EXPECT_NEAR(rms, 1.5e-3, 1.5e-3 * 1.2e-4) << rule_name(rule);
  }
}

TEST(EqualRms, AnEmptyUpdateStaysEmpty) {
  PlantedRegression task({.width = 64, .rank = 2});
  // 64 equal singular values, 1/8 of the norm each; five steps with cutoff 0.5 take 0.125
  // to 0.232, 0.107, 3e-3, 7e-8, 8e-22: a norm of 7e-21, far below the floor 1e-4
  task.weight().mutable_grad() = torch::eye(64);
  equal_rms_step(*optimizer_for(task, pion_rule(1e-2, 0.5)));
  EXPECT_LT(task.weight().norm().item<double>(), 1e-12);
  task.weight().mutable_grad().zero_();
  for (const Rule& rule : {sgd_rule(1e-2), adamw_rule(1e-2), pion_rule(1e-2, 0.5)}) {
    const Tensor before = task.weight().clone();
    equal_rms_step(*optimizer_for(task, rule));
    EXPECT_TRUE(torch::equal(task.weight(), before)) << rule_name(rule);
  }
}

TEST(EqualRms, RefusesWeightDecayBeforeAnythingIsWritten) {
  PlantedRegression task({.width = 16, .rank = 2});
  Rule rule = sgd_rule(1e-2);
  std::get<SgdRule>(rule).weight_decay = 0.1;
  const auto optimizer = optimizer_for(task, rule);
  torch::NoGradGuard no_grad;
  task.weight().fill_(1.0);
  EXPECT_THROW(task.update(0, *optimizer), std::invalid_argument);
  EXPECT_TRUE(torch::equal(task.weight(), torch::ones({16, 16})));
}

TEST(EqualRms, WithoutItTheRulesOwnScaleApplies) {
  PlantedRegression task({.width = 16, .rank = 2, .equal_rms = false});
  const auto optimizer = optimizer_for(task, sgd_rule(1e-2));
  PlantedRegression twin({.width = 16, .rank = 2});
  const Tensor gradient = twin.gradient(twin.draw());
  task.update(0, *optimizer);  // sum form of momentum: the first step is the gradient
  EXPECT_TRUE(torch::allclose(task.weight(), -1e-2 * gradient, 0x1p-22, 0.0));
}

}  // namespace
}  // namespace pion::lab
