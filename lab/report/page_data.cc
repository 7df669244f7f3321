// SPDX-License-Identifier: Apache-2.0
#include "lab/report/page_data.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <utility>

#include "lab/report/routing_table.h"

namespace pion::lab::report {
namespace {

// Of runs that are counted, and in words.
constexpr std::array<std::pair<const char*, const char*>, 4> kOddEndings = {
    {{"failed", "failed"},
     {"diverged", "diverged"},
     {"collapsed", "collapsed"},
     {"untrained", "trained nothing"}}};

// The score before the first update, mean over runs; NaN if no run evaluated there.
double untrained_score(const Comparison& comparison,
                       const std::map<int, RunRecord>& records) {
  std::vector<double> scores;
  for (const auto& [index, record] : records) {
    const MetricTable& evaluations = record.metrics.evaluations;
    const auto found = evaluations.metrics.find(comparison.score);
    if (found == evaluations.metrics.end()) continue;
    if (evaluations.step.front() == 0.0) scores.push_back(found->second.front());
  }
  return confidence_interval(scores).mean;
}

// What a random policy scores, if the runs measured it: the metric "random_" + score.
double random_score(const Comparison& comparison,
                    const std::map<int, RunRecord>& records) {
  std::vector<double> scores;
  for (const auto& [index, record] : records) {
    const auto& metrics = record.metrics.evaluations.metrics;
    const auto found = metrics.find("random_" + comparison.score);
    if (found != metrics.end())
      scores.insert(scores.end(), found->second.begin(), found->second.end());
  }
  return confidence_interval(scores).mean;
}

Json optimizer_rows(const Comparison& comparison) {
  Json rows = Json::array();
  for (const Entrant& entrant : comparison.entrants) {
    const FormattedScore parts =
        format_parts(entrant.score.mean, entrant.score.half_width);
    const bool interval = std::isfinite(entrant.score.half_width);
    Json seeds = Json::array();
    for (const int i : entrant.runs) {
      const ComparedRun& run = comparison.runs[i];
      seeds.push_back({{"seed", rounded(run.seed)},
                       {"score", rounded(run.score)},
                       {"text", format_score(run.score, kNan)},
                       {"status", run.status}});
    }
    rows.push_back({{"key", entrant.name},
                    {"label", label(entrant.name)},
                    {"lr", rounded(entrant.lr)},
                    {"edge", entrant.edge},
                    {"mean", parts.mean + parts.exponent},
                    {"interval", parts.half_width + (interval ? parts.exponent : "")},
                    {"value", rounded(entrant.score.mean)},
                    {"half_width", rounded(entrant.score.half_width)},
                    {"tuning_runs", entrant.tuning_runs},
                    {"seeds", seeds},
                    {"wall_seconds", rounded(entrant.wall_seconds)}});
  }
  return rows;
}

Json learning_rates(const Comparison& comparison) {
  Json points = Json::array(), means = Json::array();
  for (const Entrant& entrant : comparison.entrants) {
    std::map<double, std::vector<double>> scores;
    for (const ComparedRun& run : comparison.runs) {
      if (run.optimizer != entrant.name || !(run.lr > 0)) continue;
      points.push_back({{"optimizer", run.optimizer},
                        {"lr", run.lr},
                        {"seed", rounded(run.seed)},
                        {"phase", run.phase},
                        {"status", run.status},
                        {"score", rounded(run.score)}});
      if (std::isfinite(run.score)) scores[run.lr].push_back(run.score);
    }
    for (const auto& [lr, values] : scores) {
      means.push_back({{"optimizer", entrant.name},
                       {"lr", lr},
                       {"best", std::abs(lr - entrant.lr) <= 1e-9 * lr},
                       {"score", rounded(confidence_interval(values).mean)}});
    }
  }
  return {{"key", comparison.lr_key}, {"points", points}, {"means", means}};
}

Json warnings(const Comparison& comparison, const std::map<int, RunRecord>& records) {
  Json rows = Json::array();
  for (const auto& [index, record] : records) {
    const std::string& optimizer = comparison.runs[index].optimizer;
    const auto add = [&](const std::string& message, double step, double count) {
      rows.push_back({{"optimizer", optimizer},
                      {"seed", rounded(comparison.runs[index].seed)},
                      {"message", message},
                      {"step", rounded(step)},
                      {"count", count}});
    };
    for (const WarningGroup& warning : record.metrics.warnings) {
      add(warning.message, warning.first_step, warning.count);
    }
    for (const ParameterTrace& trace : record.metrics.parameters) {
      if (trace.skipped > 0) {
        add("non-finite gradient, parameter skipped: " + trace.name, kNan, trace.skipped);
      }
    }
  }
  return rows;
}

// Nested objects become dotted keys; deeper than four levels is shown as JSON.
void flatten(const Json& value, const std::string& name, int depth, Json& rows) {
  if (value.is_object() && depth < 4) {
    for (const auto& [key, entry] : value.items()) {
      flatten(entry, name.empty() ? key : name + "." + key, depth + 1, rows);
    }
  } else if (!value.is_null() && name != "command") {
    const auto replace = Json::error_handler_t::replace;
    rows.push_back({name, value.is_string() ? value.get<std::string>()
                                            : value.dump(-1, ' ', false, replace)});
  }
}

Json notes(const Comparison& comparison, const std::map<int, RunRecord>& records) {
  Json rows = Json::array();
  for (const auto& [index, record] : records) {
    const auto add = [&](const std::string& note) {
      rows.push_back({{"where", record.name}, {"message", note}});
    };
    for (const std::string& note : record.notes) add(note);
    for (const std::string& note : record.metrics.notes) add(note);
    if (record.metrics.resumes > 0) {
      add(record.metrics.resumes == 1
              ? std::string("resumed once")
              : "resumed " + std::to_string(record.metrics.resumes) + " times");
    }
  }
  std::map<std::string, int> counts;
  for (const ComparedRun& run : comparison.runs) {
    ++counts[run.status];
    if (!run.error.empty())
      rows.push_back({{"where", run.directory}, {"message", run.error}});
  }
  const std::string all = " of " + std::to_string(comparison.runs.size()) + " runs ";
  for (const auto& [status, words] : kOddEndings)
    if (const int count = counts[status]; count > 0 && !comparison.single_run)
      rows.push_back(
          {{"where", "comparison"}, {"message", std::to_string(count) + all + words}});
  return rows;
}

// Routing and recipe of each optimizer's best run.
void add_set_up(Json& page, const Comparison& comparison,
                const std::map<int, RunRecord>& records) {
  page["routing"] = Json::array(), page["recipes"] = Json::array();
  page["environment"] = Json::array();
  for (const Entrant& entrant : comparison.entrants) {
    const int run = best_run(comparison, entrant, records);
    if (run < 0) continue;
    const RunRecord& record = records.at(run);
    Json table = routing_table(record.routing_toml);
    if (table.is_object()) {
      table["optimizer"] = entrant.name;
      page["routing"].push_back(table);
    }
    if (!record.recipe_toml.empty()) {
      page["recipes"].push_back(
          {{"optimizer", entrant.name}, {"toml", record.recipe_toml}});
    }
    if (page["environment"].empty())
      flatten(record.environment, "", 0, page["environment"]);
  }
}

}  // namespace

Json page_data(const Comparison& comparison, const std::map<int, RunRecord>& records) {
  const Outcome result = outcome(comparison, untrained_score(comparison, records),
                                 random_score(comparison, records));
  Json page;
  page["kind"] = comparison.single_run ? "run" : "comparison";
  page["recipe"] = comparison.recipe;
  page["task"] = comparison.task;
  page["outcome"] = {{"headline", result.headline},
                     {"numbers", result.numbers},
                     {"verdict", result.verdict}};
  page["score"] = comparison.score;
  page["higher_is_better"] = comparison.higher_is_better;
  page["command"] = comparison.command;
  page["optimizers"] = optimizer_rows(comparison);
  page["curves"] = learning_curves(comparison, records);
  page["rates"] = learning_rates(comparison);
  page["measures"] = measures(comparison);
  page["exhibits"] = exhibits(comparison, records);
  page["answers"] = sample_answers(comparison, records);
  page["games"] = played_games(comparison, records);
  page["layers"] = layer_statistics(comparison, records);
  page["warnings"] = warnings(comparison, records);
  page["notes"] = notes(comparison, records);
  add_set_up(page, comparison, records);
  return page;
}

int best_run(const Comparison& comparison, const Entrant& entrant,
             const std::map<int, RunRecord>& records) {
  int best = -1;
  for (const int run : entrant.runs) {
    if (!records.count(run)) continue;
    const double score = comparison.runs[run].score;
    const double best_score = best < 0 ? kNan : comparison.runs[best].score;
    const bool better =
        comparison.higher_is_better ? score > best_score : score < best_score;
    if (best < 0 || better || (std::isfinite(score) && !std::isfinite(best_score)))
      best = run;
  }
  return best;
}

Json rounded(double value) {
  if (!std::isfinite(value)) return nullptr;
  char buffer[40];
  std::snprintf(buffer, sizeof buffer, "%.6g", value);
  return std::strtod(buffer, nullptr);
}

Json rounded(const std::vector<double>& values) {
  Json result = Json::array();
  for (const double value : values) result.push_back(rounded(value));
  return result;
}

}  // namespace pion::lab::report
