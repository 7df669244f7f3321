// SPDX-License-Identifier: Apache-2.0
#include "lab/run/metric_columns.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <optional>

#include "lab/run/run_directory.h"
#include "pion/optim/json_parser.h"

namespace pion::lab {
namespace {

constexpr double kLastPart = 0.1;  // of the updates

std::optional<double> number_of(const Json& object, const std::string& name) {
  const auto at = object.find(name);
  if (at == object.end() || !at->is_number()) return std::nullopt;
  return at->get<double>();
}

// Means of what is added.
class Means {
 public:
  void add(const std::string& name, double value) {
    sums_[name] += value;
    counts_[name] += 1;
  }
  std::optional<double> mean(const std::string& name) const {
    const auto at = sums_.find(name);
    if (at == sums_.end()) return std::nullopt;
    return at->second / counts_.at(name);
  }

 private:
  std::map<std::string, double> sums_, counts_;
};

void add_update(const Json& line, Means& means) {
  const auto metrics = line.find("metrics");
  if (metrics == line.end() || !metrics->is_object()) return;
  for (const auto& [name, value] : metrics->items())
    if (value.is_number()) means.add(name, value.get<double>());
}

void add_optimizer(const Json& line, Means& means) {
  const auto parameters = line.find("parameters");
  if (parameters == line.end() || !parameters->is_array()) return;
  double empty = 0;
  bool spectral = false;
  for (const Json& parameter : *parameters) {
    if (!parameter.is_object()) continue;
    const auto hidden = parameter.find("hidden");
    if (hidden != parameter.end() && hidden->is_boolean() && !hidden->get<bool>())
      continue;
    const bool has_spectrum = number_of(parameter, "directions").value_or(0) > 0;
    for (const auto& [name, value] : parameter.items()) {
      if (!value.is_number()) continue;
      if (has_spectrum || name == "update_rms" || name == "gradient_norm")
        means.add(name, value.get<double>());
    }
    spectral = spectral || has_spectrum;
    empty += has_spectrum && number_of(parameter, "directions_passed").value_or(0) < 0.5;
  }
  if (spectral) means.add("empty_matrices", empty);
}

}  // namespace

std::map<std::string, double> metric_values(std::istream& metrics,
                                            const std::vector<MetricColumn>& columns) {
  std::vector<Json> updates, optimizer;
  Json evaluation = Json::object();
  double last = 0;
  for (std::string text; std::getline(metrics, text);) {
    Json line = try_json<Json>(text);
    if (!line.is_object()) continue;
    const auto kind = line.find("kind");
    if (kind == line.end() || !kind->is_string()) continue;
    if (*kind == "evaluation" && line.contains("metrics")) evaluation = line["metrics"];
    if (*kind == "update") {
      last = std::max(last, number_of(line, "step").value_or(0));
      updates.push_back(std::move(line));
    } else if (*kind == "optimizer") {
      optimizer.push_back(std::move(line));
    }
  }
  Means of_updates, of_optimizer;
  const auto late = [&](const Json& line) {
    return number_of(line, "step").value_or(0) > (1 - kLastPart) * last;
  };
  for (const Json& line : updates)
    if (late(line)) add_update(line, of_updates);
  for (const Json& line : optimizer)
    if (late(line)) add_optimizer(line, of_optimizer);
  std::map<std::string, double> values;
  for (const MetricColumn& column : columns) {
    using Source = MetricColumn::Source;
    const std::optional<double> value =
        column.source == Source::kEvaluation
            ? number_of(evaluation, column.metric)
            : (column.source == Source::kUpdates ? of_updates : of_optimizer)
                  .mean(column.metric);
    if (value && std::isfinite(*value)) values[column.metric] = *value;
  }
  return values;
}

std::map<std::string, double> metric_values(const std::filesystem::path& run,
                                            const std::vector<MetricColumn>& columns) {
  if (columns.empty()) return {};
  std::ifstream file(RunPaths{run}.metrics());
  return metric_values(file, columns);
}

Json column_list(const std::vector<MetricColumn>& columns) {
  Json list = Json::array();
  for (const MetricColumn& column : columns)
    list.push_back({{"metric", column.metric}, {"title", column.title}});
  return list;
}

}  // namespace pion::lab
