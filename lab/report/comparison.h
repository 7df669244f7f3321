// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "lab/report/run_record.h"
#include "lab/report/statistics.h"

namespace pion::lab::report {

// One entry of compare.json's "runs".
struct ComparedRun {
  std::string directory, optimizer, phase, status, error;  // phase: "tune" or "final"
  double lr = kNan, seed = kNan, score = kNan, wall_seconds = kNan;
  std::map<std::string, double> metrics;  // of the columns below; finite ones only
};

// A metric that the comparison shows beside the score.
struct Column {
  std::string metric, title;
};

// One optimizer at its tuned rate.
struct Entrant {
  std::string name;
  double lr = kNan;
  std::string edge;            // "lowest" or "highest" of the grid, "untuned", or ""
  std::vector<int> runs;       // indices of ComparedRun at that rate, by seed
  bool tuning_runs = false;    // no final runs yet: `runs` are those of the grid
  std::vector<double> scores;  // finite ones of `runs`
  Interval score{kNan, kNan, kNan, 0};
  double wall_seconds = kNan;  // mean over `runs`
};

struct Comparison {
  bool single_run = false;
  std::string recipe, task, score, command, lr_key;
  std::string curve,
      progress;  // metrics to plot and for the x axis; "" if the file is silent
  bool higher_is_better = true;
  std::vector<Column> columns;  // in order of importance
  std::vector<ComparedRun> runs;
  std::vector<Entrant> entrants;  // in the file's order
};

// Reads compare.json's text. A comparison under way (no "best", runs without a score) is
// fine. Throws std::invalid_argument if it is not JSON, or "optimizers" or "runs" are no
// lists.
Comparison parse_comparison(std::string_view json);

// A single run as a comparison of one.
Comparison comparison_of(const RunRecord& run);

// "Pion" for "pion", "AdamW" for "adamw"; other names unchanged.
std::string label(const std::string& optimizer);

// What the page's first lines say.
struct Outcome {
  std::string headline, numbers, verdict;
};
// `untrained` is the score before the first update, `random` that of a random policy; NaN
// if unknown.
Outcome outcome(const Comparison& comparison, double untrained, double random = kNan);

// "7.9 ± 0.3", "(2.2 ± 0.2)e-4": as many decimals as the half width deserves; three
// digits without one, "–" for NaN.
struct FormattedScore {
  std::string mean, half_width, exponent;
};
FormattedScore format_parts(double mean, double half_width);
std::string format_score(double mean, double half_width);

}  // namespace pion::lab::report
