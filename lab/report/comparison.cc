// SPDX-License-Identifier: Apache-2.0
#include "lab/report/comparison.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "pion/optim/json_parser.h"

namespace pion::lab::report {
namespace {

std::map<std::string, double> parse_numbers(const Json& object) {
  std::map<std::string, double> numbers;
  for (const auto& [name, value] : object.items())
    if (value.is_number()) numbers[name] = value.get<double>();
  return numbers;
}

std::vector<Column> parse_columns(const Json& list) {
  std::vector<Column> columns;
  for (const Json& column : list)
    columns.push_back({text(column, "metric"), text(column, "title")});
  return columns;
}

ComparedRun parse_run(const Json& entry) {
  ComparedRun run;
  run.directory = text(entry, "dir");
  run.optimizer = text(entry, "optimizer");
  run.phase = text(entry, "phase");
  run.status = text(entry, "status");
  run.error = text(entry, "error");
  run.lr = number(entry, "lr");
  run.seed = number(entry, "seed");
  run.score = number(entry, "score");
  run.wall_seconds = number(entry, "wall_seconds");
  run.metrics = parse_numbers(member(entry, "metrics"));
  return run;
}

bool same_rate(double a, double b) { return std::abs(a - b) <= 1e-9 * std::abs(a); }

// The rate with the best mean score of the grid, NaN without any.
double best_rate(const Comparison& comparison, const std::string& optimizer) {
  std::map<double, std::vector<double>> scores;
  for (const ComparedRun& run : comparison.runs) {
    if (run.optimizer == optimizer && std::isfinite(run.score) && std::isfinite(run.lr)) {
      scores[run.lr].push_back(run.score);
    }
  }
  double best = kNan, best_score = kNan;
  for (const auto& [lr, values] : scores) {
    const double mean = confidence_interval(values).mean;
    const bool better =
        comparison.higher_is_better ? mean > best_score : mean < best_score;
    if (std::isnan(best_score) || better) best = lr, best_score = mean;
  }
  return best;
}

std::string grid_edge(const Json& grid, double lr) {
  std::vector<double> rates;
  if (grid.is_array()) {
    for (const Json& rate : grid) {
      if (rate.is_number()) rates.push_back(rate.get<double>());
    }
  }
  if (rates.size() < 2) return "untuned";
  const auto [low, high] = std::minmax_element(rates.begin(), rates.end());
  if (same_rate(*low, lr)) return "lowest";
  return same_rate(*high, lr) ? "highest" : "";
}

void summarize(Entrant& entrant, const Comparison& comparison) {
  std::vector<double> seconds;
  for (const int i : entrant.runs) {
    const ComparedRun& run = comparison.runs[i];
    seconds.push_back(run.wall_seconds);
    if (std::isfinite(run.score)) entrant.scores.push_back(run.score);
  }
  entrant.score = confidence_interval(entrant.scores);
  entrant.wall_seconds = confidence_interval(seconds).mean;
}

Entrant entrant_of(const Comparison& comparison, const std::string& name,
                   const Json& file) {
  Entrant entrant;
  entrant.name = name;
  entrant.lr = number(member(file, "best"), name);
  if (!std::isfinite(entrant.lr)) entrant.lr = best_rate(comparison, name);
  entrant.edge = grid_edge(member(member(file, "grid"), name), entrant.lr);
  for (const char* phase : {"final", "tune"}) {
    for (int i = 0; i < int(comparison.runs.size()); ++i) {
      const ComparedRun& run = comparison.runs[i];
      const bool chosen = run.optimizer == name && same_rate(run.lr, entrant.lr);
      if (chosen && run.phase == phase) entrant.runs.push_back(i);
    }
    if (!entrant.runs.empty()) break;
  }
  if (!entrant.runs.empty()) {
    entrant.tuning_runs = comparison.runs[entrant.runs.front()].phase == "tune";
  }
  std::stable_sort(entrant.runs.begin(), entrant.runs.end(), [&](int a, int b) {
    const double x = comparison.runs[a].seed, y = comparison.runs[b].seed;
    return std::isfinite(x) && (!std::isfinite(y) || x < y);  // unknown seeds last
  });
  summarize(entrant, comparison);
  return entrant;
}

}  // namespace

Comparison parse_comparison(std::string_view json) {
  const Json file = try_json<Json>(json);
  const auto fail = [](const std::string& what) {
    throw std::invalid_argument("write_report: compare.json must " + what +
                                "; run `pion compare` again to write it anew");
  };
  if (!file.is_object()) fail("be a JSON object, got something else");
  if (!member(file, "optimizers").is_array())
    fail("hold the list \"optimizers\", got none");
  if (!member(file, "runs").is_array()) fail("hold the list \"runs\", got none");
  Comparison comparison;
  comparison.recipe = text(file, "recipe");
  comparison.task = text(file, "task");
  comparison.score = text(file, "score");
  comparison.command = text(file, "command");
  comparison.lr_key = text(file, "lr_key");
  comparison.curve = text(file, "curve");
  comparison.progress = text(file, "progress");
  comparison.higher_is_better =
      number(file, "higher_is_better") != 0.0;  // absent: higher
  comparison.columns = parse_columns(member(file, "columns"));
  for (const Json& entry : member(file, "runs"))
    comparison.runs.push_back(parse_run(entry));
  for (const Json& name : member(file, "optimizers")) {
    if (!name.is_string())
      fail("list optimizers by name, got " + std::string(name.type_name()));
    comparison.entrants.push_back(entrant_of(comparison, name.get<std::string>(), file));
  }
  if (comparison.entrants.empty()) fail("list at least one optimizer, got none");
  return comparison;
}

Comparison comparison_of(const RunRecord& run) {
  Comparison comparison;
  comparison.single_run = true;
  comparison.recipe = run.name;
  comparison.task = run.task;
  comparison.score = run.score_name;
  comparison.command = text(run.environment, "command");
  ComparedRun only;
  only.optimizer = run.optimizer.empty() ? "optimizer" : run.optimizer;
  only.phase = "final";
  only.status = run.status;
  only.lr = run.lr, only.seed = run.seed;
  only.score = run.score, only.wall_seconds = run.wall_seconds;
  only.metrics = parse_numbers(member(run.result, "measures"));
  comparison.columns = parse_columns(member(run.result, "columns"));
  Entrant entrant;
  entrant.name = only.optimizer;
  entrant.lr = run.lr;
  entrant.edge = "untuned";
  entrant.runs = {0};
  comparison.runs = {only};
  summarize(entrant, comparison);
  comparison.entrants = {entrant};
  return comparison;
}

std::string label(const std::string& optimizer) {
  static const std::map<std::string, std::string> names = {
      {"pion", "Pion"},
      {"muon", "Muon"},
      {"adamw", "AdamW"},
      {"sgd", "SGD"},
      {"low_rank_muon", "Low-rank Muon"},
      {"low_pass_muon", "Low-pass Muon"}};
  const auto found = names.find(optimizer);
  return found == names.end() ? optimizer : found->second;
}

}  // namespace pion::lab::report
