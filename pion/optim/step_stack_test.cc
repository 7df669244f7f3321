// SPDX-License-Identifier: Apache-2.0
// Stacks of matrices, as of experts: one without a gradient is left alone.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "pion/optim/step_all.h"
#include "tests/random_numbers.h"

namespace pion {
namespace {

constexpr std::int64_t kCount = 3, kRows = 16, kCols = 24;
constexpr std::size_t kEntries = kRows * kCols;

// A stack, or matrices of their own, after a step with and two without a gradient for the
// matrix in the middle.
struct Stack {
  std::vector<float> weight = gaussian(kCount * kEntries, 1), momentum;
  std::vector<UpdateStatistics> matrices;
  UpdateStatistics result;
  Stack() : momentum(weight.size()) {}
};

std::vector<float> gradient_at(int step) {
  std::vector<float> g =
      gaussian(kCount * kEntries, 10 + static_cast<std::uint64_t>(step));
  if (step > 0) std::fill_n(g.begin() + kEntries, kEntries, step == 2 ? -0.0f : 0.0f);
  return g;
}

ParameterUpdate update_of(Stack& stack, const Rule& rule, std::vector<float>& gradient) {
  ParameterUpdate u;
  u.rule = &rule;
  u.count = kCount, u.rows = kRows, u.cols = kCols;
  u.weight = stack.weight.data(), u.momentum = stack.momentum.data();
  u.gradient = gradient.data();
  return u;
}

Stack stepped(const Rule& rule, bool as_stack, int threads, bool vouched) {
  Stack stack;
  StepWorkspaces workspaces;
  const auto pool = make_thread_pool(threads);
  for (int step = 0; step < 3; ++step) {
    std::vector<float> gradient = gradient_at(step);
    ParameterUpdate u = update_of(stack, rule, gradient);
    u.stack = as_stack, u.momentum_is_finite = vouched;
    step_all({&u, 1}, *pool, workspaces);
    stack.result = u.result;
    stack.matrices.assign(u.matrices.begin(), u.matrices.end());
  }
  return stack;
}

// The matrices as parameters of their own; one without a gradient is not given to
// step_all.
Stack stepped_apart(const Rule& rule) {
  Stack stack;
  SerialExecutor serial;
  StepWorkspaces workspaces;
  for (int step = 0; step < 3; ++step) {
    std::vector<float> gradient = gradient_at(step);
    for (std::int64_t k = 0; k < kCount; ++k) {
      if (k == 1 && step > 0) continue;
      ParameterUpdate u = update_of(stack, rule, gradient);
      u.count = 1;
      u.weight = stack.weight.data() + static_cast<std::size_t>(k) * kEntries;
      u.momentum = stack.momentum.data() + static_cast<std::size_t>(k) * kEntries;
      u.gradient = gradient.data() + static_cast<std::size_t>(k) * kEntries;
      step_all({&u, 1}, serial, workspaces);
    }
  }
  return stack;
}

std::vector<Rule> rules() {
  std::vector<Rule> all;
  for (const char* precision : {"f32", "accurate", "fast"}) {
    for (const char* name : {"muon", "pion"}) {
      all.push_back(make_rule(name));
      set_rule_key(all.back(), "precision", std::string(precision));
    }
  }
  all.push_back(make_rule("low_rank_muon"));
  for (Rule& rule : all) {
    set_rule_key(rule, "weight_decay", 0.5);
    set_rule_key(rule, "nesterov", true);
  }
  return all;
}

// Vouched momenta and several threads let step_all cut matrices into blocks.
TEST(Stacks, AMatrixWithoutGradientIsLeftAloneAsAParameterOfItsOwnIs) {
  for (const Rule& rule : rules()) {
    const Stack expected = stepped_apart(rule);
    for (const int threads : {1, 3}) {
      for (const bool vouched : {false, true}) {
        const Stack got = stepped(rule, true, threads, vouched);
        EXPECT_EQ(got.weight, expected.weight) << rule_name(rule) << " " << threads;
        EXPECT_EQ(got.momentum, expected.momentum) << rule_name(rule) << " " << threads;
      }
    }
  }
}

TEST(Stacks, StatisticsTellTheMatricesApart) {
  for (const int threads : {1, 3}) {
    const Stack got = stepped(make_rule("muon"), true, threads, true);
    ASSERT_EQ(got.matrices.size(), std::size_t{kCount});
    EXPECT_EQ(got.result.idle, 1);
    EXPECT_EQ(got.result.directions, 2 * kRows);
    double passed = 0;
    for (std::size_t k = 0; k < kCount; ++k) {
      EXPECT_EQ(got.matrices[k].idle, k == 1);
      EXPECT_EQ(got.matrices[k].directions, k == 1 ? 0 : kRows);
      // a gaussian gradient of so many entries, within five deviations of sqrt(1/2)
      EXPECT_NEAR(got.matrices[k].gradient_norm, k == 1 ? 0.0 : std::sqrt(kEntries), 3.6);
      passed += got.matrices[k].directions_passed;
    }
    EXPECT_DOUBLE_EQ(got.result.directions_passed, passed);
  }
}

// Entries whose squares are no number any more are a gradient still.
TEST(Stacks, ATinyGradientIsNotNone) {
  const Rule rule = make_rule("muon");
  Stack stack;
  std::vector<float> gradient(kCount * kEntries, 0.0f);
  gradient[kEntries + 5] = 1e-30f;
  ParameterUpdate u = update_of(stack, rule, gradient);
  u.stack = true;
  SerialExecutor serial;
  StepWorkspaces workspaces;
  step_all({&u, 1}, serial, workspaces);
  EXPECT_EQ(u.result.idle, 2);
  EXPECT_EQ(u.matrices[1].idle, 0);
}

// A matrix that is no stack goes on by its momentum, as elsewhere.
TEST(Stacks, APlainMatrixIsSteppedWithoutGradientToo) {
  const Stack before = stepped(make_rule("muon"), true, 1, true);
  const Stack after = stepped(make_rule("muon"), false, 1, true);
  const auto middle = [](const Stack& s) {
    return std::vector<float>(s.weight.begin() + kEntries,
                              s.weight.begin() + 2 * kEntries);
  };
  EXPECT_NE(middle(before), middle(after));
  EXPECT_EQ(after.result.idle, 0);
}

}  // namespace
}  // namespace pion
