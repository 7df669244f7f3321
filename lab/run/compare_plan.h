// SPDX-License-Identifier: Apache-2.0
// Which runs a comparison has, and what follows from their scores.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lab/run/recipe.h"

namespace pion::lab {

struct ComparedRun {
  std::string dir;  // below the comparison
  std::string optimizer;
  double lr = 0;
  std::int64_t seed = 0;
  std::string phase;                      // "tune" or "final"
  std::string status = "pending";         // "failed", or as result.json has it: ending.h
  std::optional<double> score;            // of a finished run, where it is finite
  std::map<std::string, double> metrics;  // of the task's columns
  double wall_seconds = 0;
  std::string error;  // why it failed, or did not end "complete"

  bool failed() const { return status == "pending" || status == "failed"; }
};

// Phase 1 tries every rate of an optimizer's grid on the tuning seeds, phase 2 the best
// rate on fresh seeds.
struct ComparePlan {
  std::vector<std::string> optimizers;
  std::map<std::string, std::vector<double>> grids;  // ascending, without repetitions
  std::vector<std::int64_t> tune_seeds, seeds;       // disjoint
  std::string lr_key;
  bool higher_is_better = true;

  // No runs for grids of one rate.
  std::vector<ComparedRun> tuning_runs() const;
  std::vector<ComparedRun> final_runs(const std::map<std::string, double>& best) const;
};

// From [compare] of the recipe. An optimizer without a grid gets five rates around the
// recipe's, a factor of 3 apart. Throws std::invalid_argument: unknown optimizer, one
// that cannot run with this recipe, an lr_key that is no number.
ComparePlan make_plan(const Recipe& recipe, bool higher_is_better);

// Throws std::invalid_argument for the grid of an optimizer that is not compared. A
// recipe may hold such grids; a flag would have no effect.
void check_grid_flags(const ComparePlan& plan, const TextPairs& flags);

// The rate with two significant digits: 1.1e-05 for 1e-4 / 9.
double rounded_rate(double rate);

// Best mean over tuning seeds, of rates that are level the middle one. A rate with a
// failed run or a score that is not finite is out. Optimizers of which no rate is left
// are absent.
std::map<std::string, double> best_rates(const ComparePlan& plan,
                                         const std::vector<ComparedRun>& tuning);

// Rates at the edge of a grid of more than one: {"muon": "lower"}.
std::map<std::string, std::string> rates_at_edge(
    const ComparePlan& plan, const std::map<std::string, double>& best);

struct Summary {
  int count = 0;
  double mean = 0;
  double standard_error = 0;  // NaN for fewer than two
};
Summary summarize(const std::vector<double>& values);

}  // namespace pion::lab
