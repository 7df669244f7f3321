// SPDX-License-Identifier: Apache-2.0
// adamw_step and sgd_step against torch.optim's formulas in double; rounding; the watch.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "pion/optim/matrix_step.h"
#include "pion/spectral/coefficients.h"
#include "tests/random_numbers.h"

namespace pion {
namespace {

constexpr std::size_t kNumbers = 37;

TEST(AdamWStep, FollowsTheDefinitionStepByStep) {
  const AdamWRule rule{
      .lr = 0.01, .beta1 = 0.8, .beta2 = 0.95, .eps = 1e-6, .weight_decay = 0.1};
  std::vector<float> w = gaussian(kNumbers, 1), m(kNumbers), v(kNumbers);
  std::vector<double> wd(w.begin(), w.end()), md(kNumbers), vd(kNumbers);
  for (int t = 1; t <= 6; ++t) {
    const std::vector<float> g = gaussian(kNumbers, 10 + static_cast<std::uint64_t>(t));
    const auto what = adamw_step<float, float>(w, g, m, v, t, rule);
    double squares = 0;
    for (std::size_t i = 0; i < kNumbers; ++i) {
      wd[i] *= 1 - rule.lr * rule.weight_decay;
      md[i] = rule.beta1 * md[i] + (1 - rule.beta1) * g[i];
      vd[i] = rule.beta2 * vd[i] + (1 - rule.beta2) * g[i] * g[i];
      const double mean = md[i] / (1 - std::pow(rule.beta1, t));
      const double root = std::sqrt(vd[i] / (1 - std::pow(rule.beta2, t)));
      const double step = rule.lr * mean / (root + rule.eps);
      wd[i] -= step;
      squares += step * step;
      // |step| <= lr (1 - b1) / sqrt(1 - b2) * ... < 5 lr; m may cancel, so its error
      // counts absolutely: 30 roundings of lr |m| / root and 3 of the weight for each
      // step
      const double tolerance =
          t * 0x1p-24 * (30 * 5 * rule.lr + 3 * (std::abs(wd[i]) + 0.1));
      EXPECT_NEAR(w[i], wd[i], tolerance) << "t = " << t << ", i = " << i;
    }
    EXPECT_NEAR(what.update_rms, std::sqrt(squares / kNumbers), 1e-5 * rule.lr);
  }
}

TEST(SgdStep, FollowsTheDefinitionStepByStep) {
  for (const SgdRule& rule : {SgdRule{.lr = 0.1, .momentum = 0.9, .weight_decay = 0.1},
                              SgdRule{.lr = 0.1, .momentum = 0.9, .dampening = 0.1},
                              SgdRule{.lr = 0.1, .momentum = 0.9, .nesterov = true},
                              SgdRule{.lr = 0.1, .momentum = 0}}) {
    std::vector<double> w = gaussian<double>(kNumbers, 1),
                        b(kNumbers, 99.0);  // read from step 2 on
    std::vector<double> expected = w, buffer(kNumbers);
    for (int t = 1; t <= 5; ++t) {
      const std::vector<double> g =
          gaussian<double>(kNumbers, 10 + static_cast<std::uint64_t>(t));
      sgd_step<double, double>(w, g, b, t, rule);
      for (std::size_t i = 0; i < kNumbers; ++i) {
        expected[i] *= 1 - rule.lr * rule.weight_decay;
        buffer[i] =
            t == 1 ? g[i] : rule.momentum * buffer[i] + (1 - rule.dampening) * g[i];
        const double d = rule.momentum == 0 ? g[i]
                         : rule.nesterov    ? g[i] + rule.momentum * buffer[i]
                                            : buffer[i];
        expected[i] -= rule.lr * d;
        // ten roundings a step of numbers below 10
        EXPECT_NEAR(w[i], expected[i], t * 10 * 0x1p-53 * 10) << "t = " << t;
      }
    }
  }
}

TEST(SgdStep, NeedsNoBufferWithoutMomentum) {
  std::vector<float> w = {1, 2}, empty;
  const std::vector<float> g = {1, 1};
  sgd_step<float, float>(w, g, empty, 1, {.lr = 0.5, .momentum = 0});
  EXPECT_EQ(w, (std::vector<float>{0.5, 1.5}));
  const SgdRule with_momentum{.lr = 0.5, .momentum = 0.5},
      without{.lr = 0.5, .momentum = 0};
  EXPECT_THROW((sgd_step<float, float>(w, g, empty, 1, with_momentum)),
               std::invalid_argument);
  EXPECT_THROW((sgd_step<float, float>(w, g, empty, 0, without)), std::invalid_argument);
}

TEST(ElementwiseSteps, TakeBfloat16Gradients) {
  const std::vector<bfloat16> g16 = {bfloat16(1.5f), bfloat16(-0.25f)};
  const std::vector<float> g = {1.5f, -0.25f};
  std::vector<float> a = {1, 1}, b = {1, 1}, ma(2), va(2), mb(2), vb(2);
  adamw_step<float, bfloat16>(a, g16, ma, va, 1, {});
  adamw_step<float, float>(b, g, mb, vb, 1, {});
  EXPECT_EQ(a, b);
}

TEST(Rounding, StochasticRoundingKeepsTheMean) {
  // 1 + 2^-9 lies a quarter of the way from 1 to the next bfloat16, 1 + 2^-7
  const std::vector<float> from(40000, 1.0f + 0x1p-9f);
  std::vector<bfloat16> to(from.size()), again(from.size()), other(from.size());
  round_stochastically(from, to, 7);
  double up = 0;
  for (const bfloat16 x : to) {
    ASSERT_TRUE(float(x) == 1.0f || float(x) == 1.0f + 0x1p-7f);
    up += float(x) > 1.0f;
  }
  // a binomial mean has standard deviation sqrt(.25 .75 / n) = 0.0022; five of them
  EXPECT_NEAR(up / static_cast<double>(from.size()), 0.25, 0.011);

  // by index alone: pieces give what the whole gives, another seed something else
  const std::span<const float> all(from);
  const std::span<bfloat16> pieces(again);
  round_stochastically(all.first(1001), pieces.first(1001), 7);
  round_stochastically(all.subspan(1001), pieces.subspan(1001), 7, 1001);
  round_stochastically(all, other, 8);
  std::size_t same = 0, differ = 0;
  for (std::size_t i = 0; i < to.size(); ++i) {
    same += to[i].bits == again[i].bits, differ += to[i].bits != other[i].bits;
  }
  EXPECT_EQ(same, to.size());
  EXPECT_NEAR(static_cast<double>(differ) / static_cast<double>(to.size()), 0.375,
              0.0125);
  round_to_nearest(from, to);
  EXPECT_EQ(float(to[0]), 1.0f);
}

TEST(EmptyUpdateWatch, WarnsOnceAndNamesParameterFilterAndRemedy) {
  PionRule rule;
  rule.promotion_steps = 0;
  const UpdateStatistics empty{.gradient_norm = 1,
                               .directions_passed = 0.01,
                               .directions = 64,
                               .sigma_max = 0.25,
                               .half_pass = 0.798};
  EmptyUpdateWatch watch(3);
  const auto observe = [&](const UpdateStatistics& what) {
    return watch.observe("h.0.q", rule, what);
  };
  EXPECT_EQ(observe(empty), "");
  EXPECT_EQ(observe({.skipped = true}), "");     // does not count, does not reset
  EXPECT_EQ(observe({.gradient_norm = 0}), "");  // neither does a zero gradient
  EXPECT_EQ(observe(empty), "");
  const std::string warning = observe(empty);
  for (const char* part :
       {"h.0.q", "last 3 updates", "0.01 of 64", "promotion_steps = 0 of 5", "0.798",
        "largest here is 0.25", "Lower cutoff to 0.2",
        "promotion_steps = 3"}) {  // half-pass 0.131 < 0.25 < 0.263
    EXPECT_NE(warning.find(part), std::string::npos) << part << " in: " << warning;
  }
  for (int i = 0; i < 10; ++i) EXPECT_EQ(observe(empty), "");
  EXPECT_TRUE(watch.warned());
  EXPECT_EQ(watch.consecutive(), 13);

  EmptyUpdateWatch reset(2);
  UpdateStatistics full = empty;
  full.directions_passed = 1;
  EXPECT_EQ(reset.observe("a", rule, empty), "");
  EXPECT_EQ(reset.observe("a", rule, full), "");
  EXPECT_EQ(reset.observe("a", rule, empty), "");
  EXPECT_NE(reset.observe("a", rule, empty), "");
  EXPECT_EQ(EmptyUpdateWatch(1).observe("a", AdamWRule{}, empty), "");
}

// Spectra of every rank, equal and falling, through the map by its definition: what
// passes is the sum of f(s_i)^2.
TEST(EmptyUpdateWatch, NoMomentumPassesSoLittleThroughMuonThatItWouldWarn) {
  for (const std::string& name : muon_sequence_names()) {
    for (int steps = 1; steps <= 12; ++steps) {
      MuonRule rule;
      rule.coefficients = name, rule.steps = steps;
      const QuinticSequence sequence = muon_sequence(name, steps);
      const double top = 1 / muon_norm_margin(name);
      EXPECT_GT(empty_below(rule), 0) << name << " " << steps;
      for (int rank = 1; rank <= 4096; rank = rank < 40 ? rank + 1 : 2 * rank) {
        for (const double ratio : {1.0, 0.97, 0.8, 0.5}) {
          double squares = 0, passed = 0;
          for (int i = 0; i < rank; ++i) squares += std::pow(ratio, 2 * i);
          for (int i = 0; i < rank; ++i) {
            const double s = top * std::pow(ratio, i) / std::sqrt(squares);
            passed += std::pow(evaluate(sequence, s), 2);
          }
          EXPECT_GE(passed, empty_below(rule)) << name << " " << steps << " " << rank;
        }
      }
    }
  }
}

TEST(EmptyUpdateWatch, AMomentumOfRankOneIsNoEmptyUpdate) {
  double s = 1;  // by the classic coefficients: 0.701, then four more steps
  for (int step = 0; step < 5; ++step) {
    s = 3.4445 * s - 4.7750 * s * s * s + 2.0315 * s * s * s * s * s;
  }
  EXPECT_LT(s * s, 0.5);
  EmptyUpdateWatch watch(1);
  const UpdateStatistics one{
      .gradient_norm = 1, .directions_passed = s * s, .directions = 8};
  EXPECT_EQ(watch.observe("a", MuonRule{}, one), "");
  const UpdateStatistics vanished{.gradient_norm = 1, .directions = 8};
  EXPECT_NE(watch.observe("a", MuonRule{}, vanished).find("has vanished"),
            std::string::npos);
  // of a filter it is less than half of what it would pass
  EXPECT_NE(EmptyUpdateWatch(1).observe("a", PionRule{}, one), "");
}

TEST(EmptyUpdateWatch, CountsTheMatricesOfAStackOneByOne) {
  const UpdateStatistics full{
      .gradient_norm = 1, .directions_passed = 8, .directions = 8};
  const UpdateStatistics empty{.gradient_norm = 1, .directions = 8, .half_pass = 0.3};
  const UpdateStatistics idle{.idle = 1};
  EmptyUpdateWatch watch(3);
  const auto observe = [&](std::vector<UpdateStatistics> matrices) {
    return watch.observe("experts", PionRule{}, full, matrices);
  };
  EXPECT_EQ(observe({full, empty, full, empty}), "");
  EXPECT_EQ(observe({empty, idle, full, empty}), "");
  EXPECT_EQ(watch.consecutive(), 2);  // of the last
  EXPECT_EQ(observe({full, empty, full, full}), "");
  EXPECT_EQ(watch.consecutive(), 2);  // of the second
  const std::string warning = observe({full, empty, full, empty});
  EXPECT_NE(warning.find("experts, matrix 1 of 4"), std::string::npos) << warning;
  EXPECT_NE(warning.find("0 of 8"), std::string::npos) << warning;
}

// Two promotions of five pass above 0.263, three above 0.131.
TEST(EmptyUpdateWatch, ItsAdviceLetsMorePassAndCanBeFollowed) {
  const UpdateStatistics unmeasured{
      .gradient_norm = 1, .directions = 64, .half_pass = 0.3};
  const std::string advice = EmptyUpdateWatch(1).observe("a", PionRule{}, unmeasured);
  EXPECT_NE(advice.find("promotion_steps = 3"), std::string::npos) << advice;

  UpdateStatistics weak = unmeasured;
  weak.sigma_max = 0.03;
  for (int steps = 2; steps <= 12; ++steps) {
    Rule rule = PionRule{};
    set_rule_key(rule, "steps", std::int64_t{steps});
    const std::string text = EmptyUpdateWatch(1).observe("a", rule, weak);
    const std::string lower = "Lower cutoff to ";
    const auto at = text.find(lower);
    ASSERT_NE(at, std::string::npos) << text;
    set_rule_key(rule, "cutoff", std::stod(text.substr(at + lower.size())));
    EXPECT_NO_THROW(check_rule(rule, "advice")) << text;
  }
}

}  // namespace
}  // namespace pion
