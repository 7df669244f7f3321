// SPDX-License-Identifier: Apache-2.0
#include "lab/tasks/solution_loss.h"

namespace pion::lab {

Generation worked_solutions(std::span<const Problem> problems) {
  std::vector<std::vector<std::int64_t>> prompts, solutions;
  for (const Problem& problem : problems) {
    prompts.emplace_back(problem.prompt.begin(), problem.prompt.end());
    solutions.emplace_back(problem.solution.begin(), problem.solution.end());
  }
  return given_answers(prompts, solutions);
}

std::vector<std::int64_t> solution_lengths(std::span<const Problem> problems) {
  std::vector<std::int64_t> lengths;
  for (const Problem& problem : problems)
    lengths.push_back(
        static_cast<std::int64_t>(problem.prompt.size() + problem.solution.size()));
  return lengths;
}

}  // namespace pion::lab
