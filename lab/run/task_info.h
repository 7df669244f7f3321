// SPDX-License-Identifier: Apache-2.0
// The list of tasks: what can be known of one without LibTorch.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "lab/run/recipe.h"

namespace pion::lab {

class Task;  // lab/run/task.h
using Json = nlohmann::ordered_json;

// A metric that comparisons show beside the score, in the task's order of importance.
struct MetricColumn {
  std::string metric;  // "format_rate"
  std::string title;   // "format rate"
  enum class Source {
    kEvaluation,  // of the final evaluation
    kUpdates,     // mean over the last tenth of the updates
    kOptimizer,  // mean over matrices and statistics of the last tenth: "update_rms", ...
  } source = Source::kEvaluation;
};

struct TaskInfo {
  std::string name;         // "snake"
  std::string description;  // one line
  Schema schema;      // its own keys; the run loop adds seed, threads, optimizer.*, ...
  std::string score;  // the evaluation metric that comparisons use, e.g. "score_mean"
  bool higher_is_better = true;
  std::string curve;  // the update metric to plot, e.g. "return_mean"
  std::vector<MetricColumn> columns = {};  // besides the score; the loss last
  std::string progress;  // the metric on the x axis, e.g. "env_steps"; "" means updates
  // The recipe whose trained model this one begins with, or ""; see start_policy.h.
  std::function<std::string(const Recipe&)> start = {};
  // The file of problems, or "".
  std::function<std::string(const Recipe&)> data = {};
  std::function<std::unique_ptr<Task>(const Recipe&)>
      make;  // may use recipe.integer("seed")
};

// All tasks, in lab/tasks/registry.cc: one line each.
const std::vector<TaskInfo>& tasks();
const TaskInfo& find_task(std::string_view name);  // throws with the nearest name

}  // namespace pion::lab
