// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <set>

#include "lab/report/page_data.h"

namespace pion::lab::report {
namespace {

constexpr int kCells = 40'000;  // of all heat maps together: about 300 kB a statistic

struct Statistic {
  const char *key, *title;
};
constexpr Statistic kStatistics[] = {{"update_rms", "update RMS"},
                                     {"directions_fraction", "directions passed"},
                                     {"stable_rank", "stable rank"},
                                     {"energy_kept", "energy kept"}};

double value_of(const ParameterTrace& trace, const std::string& key, std::size_t i) {
  const auto at = [&](const char* name) {
    const auto found = trace.values.find(name);
    return found == trace.values.end() || i >= found->second.size() ? kNan
                                                                    : found->second[i];
  };
  if (key == "update_rms") return at(key.c_str());
  // a rule that looks at no singular value (AdamW) reports zero directions
  const double all = at("directions");
  if (!(all > 0)) return kNan;
  return key == "directions_fraction" ? at("directions_passed") / all : at(key.c_str());
}

// Names of the parameters that some optimizer treats as matrices; all names if none does.
std::set<std::string> matrix_names(const std::map<int, RunRecord>& records) {
  std::set<std::string> matrices, all;
  for (const auto& [index, record] : records) {
    for (const ParameterTrace& trace : record.metrics.parameters) {
      all.insert(trace.name);
      for (std::size_t i = 0; i < trace.step.size(); ++i) {
        if (!std::isfinite(value_of(trace, "directions_fraction", i))) continue;
        matrices.insert(trace.name);
        break;
      }
    }
  }
  return matrices.empty() ? all : matrices;
}

// At most `count` of the steps at which the traces report, evenly spread, with both ends.
std::vector<double> sampled_steps(const std::vector<ParameterTrace>& traces, int count) {
  std::set<double> steps;
  for (const ParameterTrace& trace : traces) {
    for (const double step : trace.step) {
      if (std::isfinite(step)) steps.insert(step);
    }
  }
  const std::vector<double> all(steps.begin(), steps.end());
  if (int(all.size()) <= count) return all;
  std::vector<double> result;
  for (int i = 0; i < count; ++i)
    result.push_back(all[i * (all.size() - 1) / (count - 1)]);
  return result;
}

double quantile(std::vector<double> values, double q) {
  std::sort(values.begin(), values.end());
  const double position = q * double(values.size() - 1);
  const std::size_t i = std::size_t(position);
  const double next = values[std::min(i + 1, values.size() - 1)];
  return values[i] + (position - double(i)) * (next - values[i]);
}

// values[statistic][parameter][step], null where a parameter reports nothing.
Json grids(const std::vector<const ParameterTrace*>& traces,
           const std::vector<double>& steps) {
  Json values = Json::object();
  for (const Statistic& statistic : kStatistics) {
    Json rows = Json::array();
    bool any = false;
    for (const ParameterTrace* trace : traces) {
      std::map<double, double> at;  // a resumed run repeats steps: the last one holds
      for (std::size_t i = 0; i < trace->step.size(); ++i) {
        at[trace->step[i]] = value_of(*trace, statistic.key, i);
      }
      std::vector<double> row;
      for (const double step : steps) row.push_back(at.count(step) ? at[step] : kNan);
      any |=
          std::any_of(row.begin(), row.end(), [](double v) { return std::isfinite(v); });
      rows.push_back(rounded(row));
    }
    if (any) values[statistic.key] = rows;
  }
  return values;
}

// Median and quartiles over the matrices, per step.
Json spread(const Json& rows, const std::vector<double>& steps) {
  std::vector<double> x, median, low, high;
  for (std::size_t i = 0; i < steps.size(); ++i) {
    std::vector<double> values;
    for (const Json& row : rows) {
      if (row[i].is_number()) values.push_back(row[i].get<double>());
    }
    if (values.empty()) continue;
    x.push_back(steps[i]), median.push_back(quantile(values, 0.5));
    low.push_back(quantile(values, 0.25)), high.push_back(quantile(values, 0.75));
  }
  return {{"x", rounded(x)},
          {"median", rounded(median)},
          {"low", rounded(low)},
          {"high", rounded(high)}};
}

}  // namespace

Json layer_statistics(const Comparison& comparison,
                      const std::map<int, RunRecord>& records) {
  const std::set<std::string> matrices = matrix_names(records);
  const int rows =
      int(std::max<std::size_t>(1, matrices.size() * comparison.entrants.size()));
  const int columns = std::clamp(kCells / rows, 8, 80);
  Json optimizers = Json::array();
  for (const Entrant& entrant : comparison.entrants) {
    const int run = best_run(comparison, entrant, records);
    if (run < 0) continue;
    const RunRecord& record = records.at(run);
    std::vector<const ParameterTrace*> traces;
    Json names = Json::array();
    for (const ParameterTrace& trace : record.metrics.parameters) {
      if (!matrices.count(trace.name)) continue;
      traces.push_back(&trace);
      names.push_back(trace.name);
    }
    const std::vector<double> steps = sampled_steps(record.metrics.parameters, columns);
    Json values = grids(traces, steps), spreads = Json::object();
    if (values.empty()) continue;
    for (const auto& [key, grid] : values.items()) spreads[key] = spread(grid, steps);
    optimizers.push_back({{"optimizer", entrant.name},
                          {"seed", rounded(record.seed)},
                          {"steps", rounded(steps)},
                          {"parameters", names},
                          {"values", values},
                          {"spread", spreads}});
  }
  Json statistics = Json::array();
  for (const Statistic& statistic : kStatistics) {
    statistics.push_back({{"key", statistic.key}, {"title", statistic.title}});
  }
  return {{"statistics", statistics}, {"optimizers", optimizers}};
}

}  // namespace pion::lab::report
