// SPDX-License-Identifier: Apache-2.0
#include "lab/report/run_record.h"

#include <cmath>
#include <fstream>
#include <optional>
#include <sstream>
#include <utility>

#include "lab/report/routing_table.h"
#include "pion/optim/json_parser.h"
#include "pion/optim/toml_parser.h"

namespace pion::lab::report {
namespace {

constexpr std::size_t kMaxMetrics = 200;      // distinct names; more is a damaged file
constexpr std::size_t kMaxParameters = 5000;  // as above

// The line with bare NaN, Infinity and -Infinity replaced by null: other writers emit
// them.
std::string without_nan(const std::string& line) {
  std::string result;
  bool quoted = false;
  for (std::size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '"' && (i == 0 || line[i - 1] != '\\')) quoted = !quoted;
    std::size_t length = 0;
    for (const std::string_view word : {"NaN", "-Infinity", "Infinity"}) {
      if (!quoted && line.compare(i, word.size(), word) == 0) length = word.size();
    }
    if (length > 0) {
      result += "null";
      i += length - 1;
    } else {
      result += line[i];
    }
  }
  return result;
}

Json parse_line(const std::string& line) {
  Json object = try_json<Json>(line);
  if (object.is_discarded()) object = try_json<Json>(without_nan(line));
  return object.is_object() ? object : Json(Json::value_t::discarded);
}

void append(MetricTable& table, const Json& line) {
  const std::size_t row = table.step.size();
  table.step.push_back(number(line, "step"));
  table.wall_seconds.push_back(number(line, "wall_seconds"));
  const auto put = [&](const std::string& name, double value) {
    auto found = table.metrics.find(name);
    if (found == table.metrics.end()) {
      if (table.names.size() >= kMaxMetrics || !std::isfinite(value)) return;
      table.names.push_back(name);
      found = table.metrics.emplace(name, std::vector<double>(row, kNan)).first;
    }
    found->second.resize(row, kNan);
    found->second.push_back(value);
  };
  const Json& metrics = member(line, "metrics");
  if (metrics.is_object()) {
    for (const auto& [name, value] : metrics.items()) put(name, number(metrics, name));
  }
  if (line.contains("lr_factor") && !metrics.contains("lr_factor")) {
    put("lr_factor", number(line, "lr_factor"));
  }
}

void append_parameters(std::vector<ParameterTrace>& traces,
                       std::map<std::string, int>& index, const Json& line) {
  const Json& parameters = member(line, "parameters");
  if (!parameters.is_array()) return;
  for (const Json& entry : parameters) {
    const std::string name = text(entry, "name");
    if (name.empty() || (traces.size() >= kMaxParameters && !index.count(name))) continue;
    const auto [found, added] = index.emplace(name, int(traces.size()));
    if (added) traces.push_back({name, text(entry, "rule"), {}, {}, 0.0});
    ParameterTrace& trace = traces[found->second];
    trace.step.push_back(number(line, "step"));
    for (const char* key :
         {"update_rms", "directions_passed", "directions", "stable_rank", "sigma_max",
          "energy_kept", "head_spread", "gradient_norm"}) {
      trace.values[key].push_back(number(entry, key));
    }
    const double skipped = number(entry, "skipped");
    if (std::isfinite(skipped)) trace.skipped = std::max(trace.skipped, skipped);
  }
}

void append_warning(std::vector<WarningGroup>& warnings, const Json& line) {
  const std::string message = text(line, "message");
  for (WarningGroup& group : warnings) {
    if (group.message == message) {
      ++group.count;
      return;
    }
  }
  if (warnings.size() < kMaxMetrics)
    warnings.push_back({message, number(line, "step"), 1});
}

void pad(MetricTable& table) {
  for (auto& [name, column] : table.metrics) column.resize(table.step.size(), kNan);
}

Json read_json(const char* name, const RunFile& file, std::vector<std::string>& notes) {
  const std::optional<std::string> found = file(name);
  if (!found) return nullptr;
  Json value = try_json<Json>(without_nan(*found));
  if (!value.is_discarded()) return value;
  notes.push_back(std::string(name) +
                  " is not JSON, or nests too deep, and was left out");
  return nullptr;
}

// Optimizer, rate and seed from the resolved recipe: what a single run is known by.
void describe(RunRecord& run) {
  if (run.recipe_toml.empty()) return;
  try {
    const toml::table recipe = parse_toml(run.recipe_toml);
    run.task = recipe["task"].value_or(std::string());
    const auto matrices = recipe["optimizer"]["matrices"];
    run.optimizer = matrices["rule"].value_or(std::string());
    run.lr = matrices["lr"].value<double>().value_or(kNan);
    run.seed = recipe["seed"].value<double>().value_or(kNan);
  } catch (const toml::parse_error& error) {
    run.notes.push_back("recipe.toml is not TOML: " + std::string(error.description()));
  }
}

}  // namespace

const Json& member(const Json& object, std::string_view key) {
  static const Json null;
  if (!object.is_object()) return null;
  const auto found = object.find(std::string(key));
  return found == object.end() ? null : *found;
}

double number(const Json& object, std::string_view key) {
  const Json& value = member(object, key);
  if (value.is_boolean()) return value.get<bool>() ? 1.0 : 0.0;
  return value.is_number() ? value.get<double>() : kNan;
}

std::string text(const Json& object, std::string_view key) {
  const Json& value = member(object, key);
  return value.is_string() ? value.get<std::string>() : std::string();
}

Metrics read_metrics(std::istream& lines) {
  Metrics metrics;
  std::map<std::string, int> index;
  int damaged = 0, first_damaged = 0, row = 0;
  for (std::string line; std::getline(lines, line);) {
    ++row;
    const bool unfinished = lines.eof();  // no newline after the last line
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const Json object = parse_line(line);
    if (object.is_discarded()) {
      if (unfinished) {
        metrics.notes.push_back("the last line of metrics.jsonl (line " +
                                std::to_string(row) + ") is cut off and was ignored");
      } else if (damaged++ == 0) {
        first_damaged = row;
      }
      continue;
    }
    const std::string kind = text(object, "kind");
    if (kind == "update") append(metrics.updates, object);
    if (kind == "evaluation") append(metrics.evaluations, object);
    if (kind == "optimizer") append_parameters(metrics.parameters, index, object);
    if (kind == "warning") append_warning(metrics.warnings, object);
    if (kind == "resume") ++metrics.resumes;
    if (kind == "error") metrics.error = text(object, "message");
    if (kind == "resume" || kind == "update") metrics.error.clear();
  }
  if (damaged > 0) {
    metrics.notes.push_back(
        std::to_string(damaged) +
        " damaged lines of metrics.jsonl were ignored, the first is line " +
        std::to_string(first_damaged));
  }
  pad(metrics.updates);
  pad(metrics.evaluations);
  return metrics;
}

bool is_run(const std::filesystem::path& directory) {
  for (const char* name : {"metrics.jsonl", "recipe.toml", "result.json"}) {
    if (std::filesystem::is_regular_file(directory / name)) return true;
  }
  return false;
}

RunRecord read_run(const std::filesystem::path& directory) {
  std::ifstream lines(directory / "metrics.jsonl", std::ios::binary);
  const auto file = [&](const char* name) -> std::optional<std::string> {
    if (!std::filesystem::is_regular_file(directory / name)) return std::nullopt;
    std::ostringstream content;
    content << std::ifstream(directory / name, std::ios::binary).rdbuf();
    return std::move(content).str();
  };
  return read_run(std::filesystem::weakly_canonical(directory).filename().string(),
                  lines ? &lines : nullptr, file);
}

RunRecord read_run(const std::string& name, std::istream* metrics, const RunFile& file) {
  RunRecord run;
  run.name = name;
  if (metrics != nullptr) {
    run.metrics = read_metrics(*metrics);
  } else {
    run.notes.push_back("metrics.jsonl is missing: no curves");
  }
  run.environment = read_json("environment.json", file, run.notes);
  run.sample = read_json("sample.json", file, run.notes);
  run.result = read_json("result.json", file, run.notes);
  run.recipe_toml = file("recipe.toml").value_or("");
  run.routing_toml = file("routing.toml").value_or("");
  describe(run);
  if (!run.routing_toml.empty() && routing_table(run.routing_toml).is_null()) {
    run.notes.push_back("routing.toml holds no list of parameters and was left out");
  }
  if (run.result.is_object()) {
    run.status = text(run.result, "status");
    run.score = number(run.result, "score");
    run.score_name = text(run.result, "score_name");
    run.wall_seconds = number(run.result, "wall_seconds");
    // files of earlier versions say complete
    if (run.status == "complete" && !std::isfinite(run.score)) run.status = "diverged";
    if (const std::string reason = text(run.result, "reason"); !reason.empty())
      run.notes.push_back("ended as " + run.status + ": " + reason);
  } else if (!run.metrics.error.empty()) {
    run.status = "failed";
    run.notes.push_back("ended by an error: " + run.metrics.error);
  } else {
    run.notes.push_back("result.json is missing: the run has not finished");
  }
  if (!std::isfinite(run.wall_seconds) && !run.metrics.updates.wall_seconds.empty()) {
    run.wall_seconds = run.metrics.updates.wall_seconds.back();
  }
  return run;
}

}  // namespace pion::lab::report
