// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <set>

#include "lab/report/page_data.h"

namespace pion::lab::report {
namespace {

constexpr int kRunPoints = 400;    // a run's points before seeds are joined
constexpr int kNumbers = 200'000;  // of all curves together: about 1.4 MB
constexpr std::size_t kMetrics = 24;

const std::string kEvaluation = "evaluation.";

struct Axis {
  std::string key, title;
};

bool has(const MetricTable& table, const std::string& name) {
  return table.metrics.count(name) > 0;
}

// The metric that counts what a run has seen, if the runs report one.
std::string progress_metric(const Comparison& comparison,
                            const std::map<int, RunRecord>& records) {
  for (const std::string& name : {comparison.progress, std::string("env_steps"),
                                  std::string("tokens"), std::string("samples")}) {
    const bool everywhere =
        !name.empty() && !records.empty() &&
        std::all_of(records.begin(), records.end(), [&](const auto& record) {
          return record.second.metrics.updates.step.empty() ||
                 has(record.second.metrics.updates, name);
        });
    if (everywhere) return name;
  }
  return "";
}

std::string title_of(std::string key) {
  if (key == "env_steps") return "environment steps";
  std::replace(key.begin(), key.end(), '_', ' ');
  return key;
}

// x of an evaluation made at `step`: the updates' value there, linear in between.
std::vector<double> at_steps(const std::vector<double>& steps, const Curve& updates) {
  std::vector<double> result;
  for (const double step : steps) {
    const auto above = std::lower_bound(updates.x.begin(), updates.x.end(), step);
    const std::size_t i = above - updates.x.begin();
    if (updates.x.empty()) {
      result.push_back(kNan);
    } else if (above == updates.x.end()) {
      result.push_back(updates.y.back());
    } else if (i == 0) {  // before the first update, at most
      result.push_back(step <= 0 ? 0.0 : updates.y.front());
    } else {
      const double t = (step - updates.x[i - 1]) / (updates.x[i] - updates.x[i - 1]);
      result.push_back(updates.y[i - 1] + t * (updates.y[i] - updates.y[i - 1]));
    }
  }
  return result;
}

Curve curve_of(const Metrics& metrics, const std::string& metric, const Axis& axis,
               const std::string& progress) {
  const bool evaluation = metric.starts_with(kEvaluation);
  const MetricTable& table = evaluation ? metrics.evaluations : metrics.updates;
  const auto found =
      table.metrics.find(evaluation ? metric.substr(kEvaluation.size()) : metric);
  if (found == table.metrics.end()) return {};
  const auto x_of = [&](const MetricTable& from) {
    if (axis.key == "wall_seconds") return from.wall_seconds;
    if (axis.key == progress && has(from, progress)) return from.metrics.at(progress);
    return from.step;
  };
  std::vector<double> x = x_of(table);
  if (evaluation && axis.key != "step") {
    const int all = int(metrics.updates.step.size());
    x = at_steps(table.step,
                 downsample({metrics.updates.step, x_of(metrics.updates)}, all));
  }
  return downsample({x, found->second}, kRunPoints);
}

// Metrics of all runs: evaluations first, counters and the rate's factor last.
std::vector<std::string> metric_names(const std::map<int, RunRecord>& records,
                                      const std::string& progress) {
  std::vector<std::string> names, last;
  std::set<std::string> seen = {progress};
  for (const char* prefix : {kEvaluation.c_str(), ""}) {
    for (const auto& [index, record] : records) {
      const bool evaluation = *prefix != '\0';
      const Metrics& metrics = record.metrics;
      for (const std::string& name :
           evaluation ? metrics.evaluations.names : metrics.updates.names) {
        if (name.starts_with("random_"))
          continue;  // a constant, in the page's first lines
        if (!seen.insert(prefix + name).second) continue;
        (name == "lr_factor" ? last : names).push_back(prefix + name);
      }
    }
  }
  names.insert(names.end(), last.begin(), last.end());
  return names;
}

std::string default_metric(const Comparison& comparison,
                           const std::vector<std::string>& names,
                           const std::map<int, RunRecord>& records) {
  std::size_t evaluations = 0;
  for (const auto& [index, record] : records) {
    evaluations = std::max(evaluations, record.metrics.evaluations.step.size());
  }
  // two evaluations make no curve
  const std::string evaluated = evaluations >= 3 ? kEvaluation + comparison.score : "";
  for (const std::string& name :
       {comparison.curve, std::string("return_mean"), std::string("score_mean"),
        std::string("reward_mean"), comparison.score, evaluated,
        std::string("excess_loss"), std::string("loss")}) {
    if (!name.empty() && std::find(names.begin(), names.end(), name) != names.end())
      return name;
  }
  return names.empty() ? "" : names.front();
}

}  // namespace

Json learning_curves(const Comparison& comparison,
                     const std::map<int, RunRecord>& records) {
  const std::string progress = progress_metric(comparison, records);
  std::vector<Axis> axes;
  if (!progress.empty()) axes.push_back({progress, title_of(progress)});
  axes.push_back({"step", "updates"});
  axes.push_back({"wall_seconds", "wall time (seconds)"});
  std::vector<std::string> names = metric_names(records, progress);
  const std::string chosen = default_metric(comparison, names, records);
  const std::size_t dropped = names.size() > kMetrics ? names.size() - kMetrics : 0;
  if (dropped > 0) {
    std::stable_partition(names.begin(), names.end(),
                          [&](auto& name) { return name == chosen; });
    names.resize(kMetrics);
  }
  const int curves = int(names.size() * axes.size() * comparison.entrants.size());
  const int points = std::clamp(kNumbers / (4 * std::max(curves, 1)), 40, 240);

  Json series = Json::array();
  for (const std::string& metric : names) {
    for (const Axis& axis : axes) {
      for (const Entrant& entrant : comparison.entrants) {
        std::vector<Curve> seeds;
        for (const int run : entrant.runs) {
          if (!records.count(run)) continue;
          Curve curve = curve_of(records.at(run).metrics, metric, axis, progress);
          if (!curve.x.empty()) seeds.push_back(downsample(curve, points));
        }
        const Band band = aggregate(seeds, points);
        if (band.x.empty()) continue;
        series.push_back({{"metric", metric},
                          {"axis", axis.key},
                          {"optimizer", entrant.name},
                          {"x", rounded(band.x)},
                          {"mean", rounded(band.mean)},
                          {"low", rounded(band.low)},
                          {"high", rounded(band.high)},
                          {"count", band.count}});
      }
    }
  }
  Json axis_list = Json::array(), metric_list = Json::array();
  for (const Axis& axis : axes)
    axis_list.push_back({{"key", axis.key}, {"title", axis.title}});
  for (const std::string& name : names) {
    const bool evaluation = name.starts_with(kEvaluation);
    const std::string title =
        title_of(evaluation ? name.substr(kEvaluation.size()) : name);
    metric_list.push_back(
        {{"key", name}, {"title", evaluation ? title + ", evaluation" : title}});
  }
  return {{"axes", axis_list},
          {"metrics", metric_list},
          {"chosen", chosen},
          {"dropped", dropped},
          {"series", series}};
}

}  // namespace pion::lab::report
