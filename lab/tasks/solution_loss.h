// SPDX-License-Identifier: Apache-2.0
// Worked solutions as supervised examples: the prompt is given, the solution is learned.
#pragma once

#include <span>

#include "lab/data/problem_set.h"
#include "lab/models/generation.h"

namespace pion::lab {

// Every problem with its solution in place of a generated answer.
Generation worked_solutions(std::span<const Problem> problems);

// Prompt and solution of each, in tokens.
std::vector<std::int64_t> solution_lengths(std::span<const Problem> problems);

}  // namespace pion::lab
