// SPDX-License-Identifier: Apache-2.0
// Runs of the planted study: tuning on some seeds, scoring on others, in parallel.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "lab/run/task.h"

namespace pion::study {

// A rule with a name for tables; its lr is set by the grid.
struct Method {
  std::string name;
  Rule rule;
};

using MakeTask = std::function<std::unique_ptr<lab::Task>(std::int64_t seed)>;

// Metrics of one run: Task::evaluate() after the last update, and "tail_loss", the mean
// of the update metric `tail` over the last 100 updates if that is not empty.
struct Schedule {
  bool decay = true;  // lr falls linearly to 0; false: constant
  std::string tail;
};
lab::Json run_once(const MakeTask& make, const Rule& rule, double lr, std::int64_t seed,
                   const Schedule& schedule);

// A grid of learning rates centre * 1.6^k. The search begins with `points` of them around
// `centre` and adds one more at an end as long as the best lies there, `most` in all.
// refine: then also half a step (a factor 1.26) below and above the best.
struct Grid {
  double centre;
  int points = 3;
  int most = 12;
  bool refine = false;
};

// One method on one problem. Lower scores are better.
struct Cell {
  std::string group, problem;
  Method method;
  MakeTask make;
  Schedule schedule;
  std::string score;
  Grid grid;
  std::vector<std::int64_t> tune_seeds = {0, 1, 2}, fresh_seeds = {10, 11, 12, 13, 14};

  // results
  std::vector<double> lrs, tuning;  // mean over tune_seeds, in order of lr
  double best_lr = 0.0;
  bool edge = false;           // the best lr is an end of the grid
  std::vector<double> scores;  // on fresh_seeds
  double seconds = 0.0;
};
void tune_and_score(Cell& cell);

struct Mean {
  double mean, error;  // standard error, 0 for one value
};
Mean mean_of(const std::vector<double>& values);

// Calls task(0) .. task(count - 1) on `jobs` threads; each runs ATen on one thread. The
// first exception is thrown again at the end.
void in_parallel(std::size_t count, int jobs,
                 const std::function<void(std::size_t)>& task);

}  // namespace pion::study
