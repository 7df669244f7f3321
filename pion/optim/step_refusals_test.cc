// SPDX-License-Identifier: Apache-2.0
// What step_all refuses before it writes, and neighbours that must not see one another.
#include <gtest/gtest.h>

#include <limits>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "pion/optim/step_all.h"
#include "tests/random_numbers.h"
#include "tests/thrown_message.h"

namespace pion {
namespace {

// One f32 parameter of (count, rows, cols) with room for the state of any rule.
struct Arrays {
  Rule rule;
  std::int64_t count, rows, cols;
  std::vector<float> weight, gradient, first, second;
  Arrays(Rule with, std::int64_t matrices, std::int64_t m, std::int64_t n,
         std::uint64_t seed = 1)
      : rule(std::move(with)), count(matrices), rows(m), cols(n) {
    const auto entries = static_cast<std::size_t>(count * rows * cols);
    weight = gaussian(entries, seed), gradient = gaussian(entries, seed + 1);
    first = second = std::vector<float>(entries);
  }
  ParameterUpdate update() {
    ParameterUpdate u;
    u.rule = &rule;
    u.count = count, u.rows = rows, u.cols = cols;
    u.weight = weight.data(), u.gradient = gradient.data();
    u.momentum = u.exp_avg = first.data(), u.exp_avg_sq = second.data();
    return u;
  }
};

std::string message_of_step(std::vector<ParameterUpdate> updates, int threads = 2) {
  StepWorkspaces workspaces;
  const auto pool = make_thread_pool(threads);
  return message_of([&] { step_all(updates, *pool, workspaces); });
}

// By the definition: AdamW's first step moves every entry by lr against the sign of its
// gradient, and SGD's by lr times the gradient.
TEST(StepAll, AnEmptyParameterLendsItsNeighboursNothing) {
  for (const bool adamw_second : {true, false}) {
    const Rule slow = AdamWRule{.lr = 0.001}, fast = AdamWRule{.lr = 0.1};
    const Rule sgd = SgdRule{.lr = 0.1, .momentum = 0};
    Arrays first(slow, 1, 1, 1), empty(adamw_second ? fast : sgd, 1, 1, 0),
        last(empty.rule, 1, 1, 1, 7);
    last.gradient = {2.0f};
    std::vector<ParameterUpdate> updates = {first.update(), empty.update(),
                                            last.update()};
    updates[1].rule = updates[2].rule;  // one group
    const float before = last.weight[0];
    EXPECT_EQ(message_of_step(updates), "");
    EXPECT_NEAR(last.weight[0], before - (adamw_second ? 0.1f : 0.2f), 1e-6);
  }
}

TEST(StepAll, TakesParametersWithoutEntriesUnderEveryRule) {
  for (const std::string& name : rule_names()) {
    const Rule rule = make_rule(name);
    for (const std::int64_t count : {0, 1, 3}) {
      Arrays empty(rule, is_matrix_rule(rule) ? count : 1, 1, 0);
      if (is_matrix_rule(rule)) empty.rows = 4;
      EXPECT_EQ(message_of_step({empty.update()}), "") << name << " " << count;
    }
  }
}

TEST(StepAll, RefusesArraysThatTwoUpdatesWrite) {
  const Rule muon = MuonRule{}, adamw = AdamWRule{};
  Arrays a(adamw, 1, 1, 9), b(adamw, 1, 1, 9, 5), c(muon, 1, 4, 4);
  const std::vector<float> before = a.weight;
  const auto expect_refused = [&](ParameterUpdate one, ParameterUpdate other) {
    one.name = "head.weight";
    expect_says(message_of_step({c.update(), one, other}),
                "updates[2]: its weight and state must have memory of their own, got "
                "what updates[1] (head.weight) writes too");
  };
  expect_refused(a.update(), a.update());
  ParameterUpdate tied = b.update();
  tied.weight = a.weight.data() + 8;  // the last entry
  tied.cols = 1;
  expect_refused(a.update(), tied);
  ParameterUpdate same_state = b.update();
  same_state.exp_avg_sq = a.second.data();
  expect_refused(a.update(), same_state);
  EXPECT_EQ(a.weight, before);

  ParameterUpdate neighbour = b.update();  // halves of one buffer are apart
  neighbour.weight = a.weight.data() + 4, neighbour.cols = 5;
  ParameterUpdate half = a.update();
  half.cols = 4;
  EXPECT_EQ(message_of_step({half, neighbour}), "");
}

// The neighbours stand before and after, so that one of them would have been stepped.
TEST(StepAll, AMomentumThatIsNotFiniteIsRefusedBeforeANeighbourIsStepped) {
  for (const NonFinite policy : {NonFinite::kRaise, NonFinite::kZero}) {
    MuonRule muon;
    muon.nonfinite = policy;
    for (const Precision precision : {Precision::kF32, Precision::kAccurate}) {
      muon.precision = precision;
      Arrays good(AdamWRule{}, 1, 1, 9), bad(muon, 2, 8, 12), other(muon, 1, 64, 96, 3);
      bad.first.back() = std::numeric_limits<float>::quiet_NaN();
      const auto before = std::tuple(good.weight, bad.weight, other.weight, other.first);
      for (const int threads : {1, 2}) {
        ParameterUpdate named = bad.update();
        named.name = "experts";
        expect_says(message_of_step({good.update(), named, other.update()}, threads),
                    "updates[1] (experts): the momentum must be finite");
        EXPECT_EQ(std::tuple(good.weight, bad.weight, other.weight, other.first), before);
      }
    }
  }
}

}  // namespace
}  // namespace pion
