// SPDX-License-Identifier: Apache-2.0
#include "lab/run/compare_plan.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <sstream>
#include <stdexcept>

#include "lab/files/plain_name.h"

namespace pion::lab {
namespace {

std::vector<std::string> split(const std::string& list) {
  std::vector<std::string> parts;
  std::istringstream stream(list);
  for (std::string part; std::getline(stream, part, ',');) {
    part.erase(0, std::min(part.find_first_not_of(' '), part.size()));
    part.erase(part.find_last_not_of(' ') + 1);
    if (part.empty()) continue;
    check_plain_name(part, "compare.optimizers");
    if (std::find(parts.begin(), parts.end(), part) != parts.end())
      throw std::invalid_argument("compare.optimizers: names \"" + part + "\" twice");
    parts.push_back(part);
  }
  if (parts.empty())
    throw std::invalid_argument("compare.optimizers: must name one optimizer or more");
  return parts;
}

ComparedRun make_run(const std::string& optimizer, double lr, std::int64_t seed,
                     const char* phase) {
  return {.dir = optimizer + "-lr" + number_text(lr) + "-seed" + std::to_string(seed),
          .optimizer = optimizer,
          .lr = lr,
          .seed = seed,
          .phase = phase};
}

}  // namespace

std::vector<ComparedRun> ComparePlan::tuning_runs() const {
  std::vector<ComparedRun> runs;
  for (const std::string& optimizer : optimizers) {
    const std::vector<double>& rates = grids.at(optimizer);
    if (rates.size() < 2) continue;
    for (const double lr : rates)
      for (const std::int64_t seed : tune_seeds)
        runs.push_back(make_run(optimizer, lr, seed, "tune"));
  }
  return runs;
}

std::vector<ComparedRun> ComparePlan::final_runs(
    const std::map<std::string, double>& best) const {
  std::vector<ComparedRun> runs;
  for (const std::int64_t seed : seeds)
    for (const std::string& optimizer : optimizers)
      if (const auto at = best.find(optimizer); at != best.end())
        runs.push_back(make_run(optimizer, at->second, seed, "final"));
  return runs;
}

double rounded_rate(double rate) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1e", rate);
  return std::strtod(text, nullptr);
}

void check_grid_flags(const ComparePlan& plan, const TextPairs& flags) {
  constexpr std::string_view kGrid = "compare.grid.";
  for (const auto& [key, text] : flags) {
    if (key.rfind(kGrid, 0) != 0 || plan.grids.contains(key.substr(kGrid.size())))
      continue;
    std::string names;
    for (const std::string& each : plan.optimizers)
      names += (names.empty() ? "" : ", ") + each;
    throw std::invalid_argument("--grid " + key.substr(kGrid.size()) + "=" + text +
                                ": is not compared; there are: " + names +
                                ". Name it in --optimizers, or leave the grid out");
  }
}

ComparePlan make_plan(const Recipe& recipe, bool higher_is_better) {
  if (const std::string& preset = recipe.text("optimizer.preset"); !preset.empty())
    throw std::invalid_argument("compare: preset \"" + preset +
                                "\" sets every rule itself, so no other optimizer can "
                                "take its place; leave out optimizer.preset");
  ComparePlan plan;
  plan.higher_is_better = higher_is_better;
  plan.optimizers = split(recipe.text("compare.optimizers"));
  plan.lr_key = recipe.text("compare.lr_key");
  for (const std::string& optimizer : plan.optimizers) {
    Recipe trial = recipe;
    try {
      trial.set_all(recipe.variant(optimizer));
      const double lr = std::stod(trial.value_text(plan.lr_key));
      const auto grid = recipe.grids().find(optimizer);
      std::vector<double> rates = {rounded_rate(lr / 9), rounded_rate(lr / 3), lr,
                                   rounded_rate(lr * 3), rounded_rate(lr * 9)};
      if (grid != recipe.grids().end()) rates = grid->second;
      std::sort(rates.begin(), rates.end());
      rates.erase(std::unique(rates.begin(), rates.end()), rates.end());
      for (const double rate : rates) trial.set(plan.lr_key, number_text(rate));
      plan.grids[optimizer] = rates;
    } catch (const std::invalid_argument& error) {
      const std::string what = error.what();
      throw std::invalid_argument(
          "compare: optimizer \"" + optimizer +
          "\": " + (what == "stod" ? plan.lr_key + " is no number" : what));
    }
  }
  for (const double seed : recipe.numbers("compare.tune_seeds")) {
    if (seed != std::floor(seed))
      throw std::invalid_argument("compare.tune_seeds: must be whole numbers, got " +
                                  number_text(seed));
    plan.tune_seeds.push_back(static_cast<std::int64_t>(seed));
  }
  if (plan.tune_seeds.empty())
    throw std::invalid_argument("compare.tune_seeds: must name one seed or more");
  // fresh: a seed that helped to choose the rate would flatter the choice
  const auto tuned = [&](std::int64_t seed) {
    return std::find(plan.tune_seeds.begin(), plan.tune_seeds.end(), seed) !=
           plan.tune_seeds.end();
  };
  const auto wanted = static_cast<std::size_t>(recipe.integer("compare.seeds"));
  for (std::int64_t seed = 1; plan.seeds.size() < wanted; ++seed)
    if (!tuned(seed)) plan.seeds.push_back(seed);
  return plan;
}

std::map<std::string, double> best_rates(const ComparePlan& plan,
                                         const std::vector<ComparedRun>& tuning) {
  std::map<std::string, double> best;
  for (const std::string& optimizer : plan.optimizers) {
    const std::vector<double>& rates = plan.grids.at(optimizer);
    if (rates.size() == 1) best[optimizer] = rates.front();
    double best_mean = 0;
    std::vector<double> equal;  // rates with the best mean
    for (const double lr : rates) {
      double sum = 0;
      int count = 0;
      bool sound = true;
      for (const ComparedRun& run : tuning) {
        if (run.optimizer != optimizer || run.lr != lr || run.phase != "tune") continue;
        sound = sound && !run.failed() && run.status != "diverged" && run.score &&
                std::isfinite(*run.score);
        sum += run.score.value_or(0);
        ++count;
      }
      if (!sound || count == 0) continue;
      const double mean = sum / count;
      const bool better = plan.higher_is_better ? mean > best_mean : mean < best_mean;
      if (equal.empty() || better) equal.clear(), best_mean = mean;
      if (mean == best_mean) equal.push_back(lr);
    }
    if (!equal.empty()) best[optimizer] = equal[(equal.size() - 1) / 2];
  }
  return best;
}

std::map<std::string, std::string> rates_at_edge(
    const ComparePlan& plan, const std::map<std::string, double>& best) {
  std::map<std::string, std::string> edges;
  for (const auto& [optimizer, lr] : best) {
    const std::vector<double>& rates = plan.grids.at(optimizer);
    if (rates.size() < 2) continue;
    if (lr == rates.front()) edges[optimizer] = "lower";
    if (lr == rates.back()) edges[optimizer] = "upper";
  }
  return edges;
}

Summary summarize(const std::vector<double>& values) {
  Summary summary{.standard_error = std::numeric_limits<double>::quiet_NaN()};
  for (const double value : values) summary.mean += value;
  summary.count = static_cast<int>(values.size());
  if (summary.count == 0)
    summary.mean = std::numeric_limits<double>::quiet_NaN();
  else
    summary.mean /= summary.count;
  if (summary.count < 2) return summary;
  double squares = 0;
  for (const double value : values)
    squares += (value - summary.mean) * (value - summary.mean);
  summary.standard_error = std::sqrt(squares / (summary.count - 1) / summary.count);
  return summary;
}

}  // namespace pion::lab
