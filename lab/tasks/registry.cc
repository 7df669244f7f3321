// SPDX-License-Identifier: Apache-2.0
// All tasks. A new one is one include and one line.
#include <stdexcept>

#include "lab/tasks/forgetting.h"
#include "lab/tasks/least_squares.h"
#include "lab/tasks/planted_regression.h"
#include "lab/tasks/rlvr.h"
#include "lab/tasks/sft.h"
#include "lab/tasks/snake.h"

namespace pion::lab {

const std::vector<TaskInfo>& tasks() {
  static const std::vector<TaskInfo> all = {
      planted_regression_info(),
      forgetting_info(),
      least_squares_info(),
      snake_info(),
      sft_info(),
      rlvr_info(),
  };
  return all;
}

const TaskInfo& find_task(std::string_view name) {
  std::vector<std::string> names;
  for (const TaskInfo& task : tasks()) {
    if (task.name == name) return task;
    names.push_back(task.name);
  }
  const std::string nearest = nearest_name(name, names);
  std::string message = "find_task: unknown task \"" + std::string(name) + "\"";
  message += nearest.empty() ? "; known:" : "; did you mean \"" + nearest + "\"? Known:";
  for (const std::string& known : names) message += " " + known;
  throw std::invalid_argument(message);
}

}  // namespace pion::lab
