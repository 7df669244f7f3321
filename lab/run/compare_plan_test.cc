// SPDX-License-Identifier: Apache-2.0
#include "lab/run/compare_plan.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <stdexcept>

namespace pion::lab {
namespace {

ComparePlan small_plan() {
  return {.optimizers = {"adamw", "muon"},
          .grids = {{"adamw", {1, 2, 3}}, {"muon", {5}}},
          .tune_seeds = {100, 101},
          .seeds = {1, 2},
          .lr_key = "optimizer.matrices.lr"};
}

std::vector<ComparedRun> scored(const ComparePlan& plan,
                                const std::vector<double>& scores) {
  std::vector<ComparedRun> runs = plan.tuning_runs();
  EXPECT_EQ(runs.size(), scores.size());
  for (std::size_t i = 0; i < runs.size(); ++i)
    runs[i].status = "complete", runs[i].score = scores[i];
  return runs;
}

TEST(ComparePlan, TunesOnlyGridsAndRunsTheBestOnFreshSeeds) {
  const ComparePlan plan = small_plan();
  // means 2, 3, 2
  const std::vector<ComparedRun> runs = scored(plan, {1, 3, 5, 1, 2, 2});
  const std::map<std::string, double> best = best_rates(plan, runs);
  EXPECT_EQ(best, (std::map<std::string, double>{{"adamw", 2}, {"muon", 5}}));
  EXPECT_TRUE(rates_at_edge(plan, best).empty());
  EXPECT_EQ(plan.final_runs(best).size(), 4u);
  EXPECT_EQ(plan.final_runs(best)[0].dir, "adamw-lr2.0-seed1");
}

TEST(ComparePlan, OptimizersAreNames) {
  Recipe recipe = Recipe::parse("task = \"planted_regression\"", "r.toml");
  for (const char* names : {"../x", "muon,a/b", "muon,.hidden"}) {
    recipe.set("compare.optimizers", names);
    try {
      make_plan(recipe, true);
      ADD_FAILURE() << names;
    } catch (const std::invalid_argument& error) {
      EXPECT_EQ(std::string(error.what()).find("compare.optimizers: an optimizer's name"),
                0u)
          << error.what();
    }
  }
}

TEST(ComparePlan, LowerCanBeBetterAndEdgesAreNamed) {
  ComparePlan plan = small_plan();
  plan.higher_is_better = false;
  const auto best = best_rates(plan, scored(plan, {9, 9, 8, 8, 1, 1}));
  EXPECT_EQ(best.at("adamw"), 3);
  EXPECT_EQ(rates_at_edge(plan, best),
            (std::map<std::string, std::string>{{"adamw", "upper"}}));
}

TEST(ComparePlan, OfLevelRatesTheMiddleOneIsTaken) {
  const ComparePlan plan = small_plan();
  EXPECT_EQ(best_rates(plan, scored(plan, {0, 0, 0, 0, 0, 0})).at("adamw"), 2);
  EXPECT_EQ(best_rates(plan, scored(plan, {1, 1, 0, 0, 1, 1})).at("adamw"), 1);
  EXPECT_EQ(best_rates(plan, scored(plan, {0, 0, 4, 4, 4, 4})).at("adamw"), 2);
}

TEST(ComparePlan, AFailedOrNonFiniteRunRulesItsRateOut) {
  const ComparePlan plan = small_plan();
  std::vector<ComparedRun> runs = scored(plan, {1, 1, 9, 9, 5, 5});
  runs[2].status = "failed";
  EXPECT_EQ(best_rates(plan, runs).at("adamw"), 3);
  runs[4].score = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(best_rates(plan, runs).at("adamw"), 1);
  runs[0].score.reset();
  EXPECT_FALSE(best_rates(plan, runs).contains("adamw"));
}

TEST(ComparePlan, FreshSeedsAreNotThoseOfTuning) {
  Recipe recipe = Recipe::parse(
      "task = \"planted_regression\"\n[compare]\ntune_seeds = [2]\noptimizers = \"adamw, "
      "muon\"\n[compare.grid]\nmuon = [3e-3, 1e-3]\n",
      "r.toml");
  const ComparePlan plan = make_plan(recipe, false);
  EXPECT_EQ(plan.seeds, (std::vector<std::int64_t>{1, 3, 4}));
  EXPECT_EQ(plan.grids.at("muon"), (std::vector<double>{1e-3, 3e-3}));
  recipe.set("optimizer.matrices.lr", "1.25e-4");
  EXPECT_EQ(make_plan(recipe, false).grids.at("adamw"),  // around the recipe's
            (std::vector<double>{1.4e-5, 4.2e-5, 1.25e-4, 3.8e-4, 1.1e-3}));
  recipe.set("compare.optimizers", "adamw,nuon");
  EXPECT_THROW(make_plan(recipe, false), std::invalid_argument);
  recipe.set("compare.optimizers", "adamw");
  recipe.set("compare.lr_key", "optimizer.matrices.rule");
  EXPECT_THROW(make_plan(recipe, false), std::invalid_argument);
}

TEST(ComparePlan, RefusesPresetsAndGridsThatWouldHaveNoEffect) {
  Recipe recipe = Recipe::parse(
      "task = \"planted_regression\"\n[compare.grid]\nsgd = [1e-3]\n", "r.toml");
  const ComparePlan plan = make_plan(recipe, false);  // the file's grid may wait
  EXPECT_NO_THROW(check_grid_flags(plan, {{"compare.grid.pion", "1e-3"}, {"seed", "1"}}));
  EXPECT_THROW(check_grid_flags(plan, {{"compare.grid.sgd", "1e-3"}}),
               std::invalid_argument);
  recipe.set("optimizer.preset", "paper-rlvr");
  EXPECT_THROW(make_plan(recipe, false), std::invalid_argument);
}

TEST(ComparePlan, SummaryIsMeanAndStandardError) {
  const Summary summary = summarize({1, 2, 3, 6});
  EXPECT_EQ(summary.mean, 3);
  // deviations -2 -1 0 3: sum of squares 14, / 3 / 4
  EXPECT_DOUBLE_EQ(summary.standard_error, std::sqrt(14.0 / 12));
  EXPECT_TRUE(std::isnan(summarize({1}).standard_error));
  EXPECT_TRUE(std::isnan(summarize({}).mean));
}

}  // namespace
}  // namespace pion::lab
