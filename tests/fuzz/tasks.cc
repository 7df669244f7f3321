// SPDX-License-Identifier: Apache-2.0
// In the place of lab/tasks/registry.cc, which needs LibTorch: one task with a key of
// every type.
#include <stdexcept>

#include "lab/run/recipe_keys.h"
#include "lab/run/task_info.h"

namespace pion::lab {

const std::vector<TaskInfo>& tasks() {
  static const std::vector<TaskInfo> all = {
      {.name = "toy",
       .description = "every type of key",
       .schema = {flag("toy.switch", true, ""),
                  whole("toy.count", 3, "", 0, 1000),
                  real("toy.share", 0.5, "", 0.0, 1.0),
                  word("toy.kind", "a", ""),
                  word("toy.choice", "x", "", {"x", "y"}),
                  {"toy.rates", std::vector<double>{1.0}, "", 0.0, 9.0, {}}},
       .score = "score"}};
  return all;
}

const TaskInfo& find_task(std::string_view name) {
  if (name == tasks().front().name) return tasks().front();
  throw std::invalid_argument("find_task: unknown task \"" + std::string(name) + "\"");
}

}  // namespace pion::lab
