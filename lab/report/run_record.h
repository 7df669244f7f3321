// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <functional>
#include <istream>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pion::lab::report {

using Json = nlohmann::ordered_json;
inline constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

// Member of a JSON object if it has the type; else NaN, "" or null. A boolean counts as 0
// or 1.
double number(const Json& object, std::string_view key);
std::string text(const Json& object, std::string_view key);
const Json& member(const Json& object, std::string_view key);

// Lines of one kind. Every metric has one entry a line, NaN where that line lacks it.
struct MetricTable {
  std::vector<double> step, wall_seconds;
  std::vector<std::string> names;  // in order of first appearance
  std::map<std::string, std::vector<double>> metrics;
};

// One parameter's statistics over time; vectors are as long as `step`, NaN where absent.
struct ParameterTrace {
  std::string name, rule;
  std::vector<double> step;
  std::map<std::string, std::vector<double>>
      values;            // "update_rms", "directions_passed", ...
  double skipped = 0.0;  // steps with a non-finite gradient
};

struct WarningGroup {
  std::string message;
  double first_step = kNan;
  int count = 0;
};

// What metrics.jsonl says. `notes` name what could not be read.
struct Metrics {
  MetricTable updates, evaluations;
  std::vector<ParameterTrace> parameters;
  std::vector<WarningGroup> warnings;
  int resumes = 0;
  std::string error;  // that ended the run; "" after a resume
  std::vector<std::string> notes;
};

// Reads metrics.jsonl. Never throws on bad content: damaged lines are left out and noted;
// an unfinished last line (a killed run) has a note of its own. NaN and Infinity become
// gaps.
Metrics read_metrics(std::istream& lines);

// One run directory. Fields stay empty where a file is missing.
struct RunRecord {
  // status: "unfinished", "failed", or as result.json has it: lab/run/ending.h
  std::string name, task, optimizer, status = "unfinished", score_name;
  double lr = kNan, seed = kNan, score = kNan, wall_seconds = kNan;
  Metrics metrics;
  Json environment, sample, result;
  std::string recipe_toml, routing_toml;
  std::vector<std::string> notes;  // missing or damaged files
};

// Whether the directory holds metrics.jsonl, recipe.toml or result.json.
bool is_run(const std::filesystem::path& directory);

RunRecord read_run(const std::filesystem::path& directory);

// The same from anywhere: metrics.jsonl's lines, null where it is missing, and the text
// of each other file.
using RunFile = std::function<std::optional<std::string>(const char* name)>;
RunRecord read_run(const std::string& name, std::istream* metrics, const RunFile& file);

}  // namespace pion::lab::report
